"""Seeds the kernel's random generator from the NSM, before the first key is made. Without it the boot fails."""

import errno
import fcntl
import os
import struct

from runtime.enclave.identity.nsm import Nsm

_RNDADDENTROPY = 0x40085203
"""random(4): add bytes to the pool and credit them. Needs CAP_SYS_ADMIN."""

_SEED_SIZE = 64
_RANDOM_DEVICE = "/dev/random"


async def seed_entropy(nsm: Nsm) -> int:
    """Adds at least 64 bytes of GetRandom to the kernel's pool; returns how many were credited. Raises `NsmError` or `OSError`.

    Where the process may not credit them (an unprivileged simulation) they are mixed in all the same, and 0 is returned: the kernel of
    that machine has long been seeded.
    """
    seed = b""
    while len(seed) < _SEED_SIZE:
        seed += await nsm.random()
    descriptor = os.open(_RANDOM_DEVICE, os.O_WRONLY | os.O_CLOEXEC)
    try:
        return _add(descriptor, seed)
    finally:
        os.close(descriptor)


def _add(descriptor: int, seed: bytes) -> int:
    # struct rand_pool_info { int entropy_count (bits); int buf_size; __u32 buf[]; }
    try:
        fcntl.ioctl(descriptor, _RNDADDENTROPY, struct.pack("=ii", len(seed) * 8, len(seed)) + seed)
    except OSError as error:
        if error.errno != errno.EPERM:
            raise
        os.write(descriptor, seed)
        return 0
    return len(seed)
