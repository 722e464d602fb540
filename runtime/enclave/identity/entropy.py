"""Seeds the kernel's random generator from the NSM, before the first key is made. Without it the boot fails.

Every key of a boot is made in a worker, and no worker is forked before this is done: boot.py hands the module on only when it is.
"""

import errno
import fcntl
import os
import struct
from collections.abc import Callable
from pathlib import Path

from runtime.enclave.identity.nsm import Nsm, NsmDevice, NsmError
from runtime.protocol.link_values import JournalFields, Level

_RNDADDENTROPY = 0x40085203
"""random(4): add bytes to the pool and credit them. Needs CAP_SYS_ADMIN."""

_SEED_SIZE = 64
_DISTINCT_LEAST = 32
"""So many different bytes a seed must have: 64 random ones have 57 on average, and fewer than 32 not once in the life of all machines."""

_RANDOM_DEVICE = "/dev/random"

NITRO_GENERATOR = "nsm-hwrng"
"""What feeds the kernel's pool in a Nitro enclave, by the name that the NSM's driver gives it."""

_CURRENT_GENERATOR = Path("/sys/class/misc/hw_random/rng_current")
_NAME_MAX = 100


async def open_module(device: NsmDevice, note: Callable[[str, JournalFields, Level], None]) -> Nsm:
    """The security module, handed out only when the kernel's generator is seeded from it. Raises `NsmError` or OSError.

    That the pool is fed by the module's driver as well is expected of an enclave and journalled, not required: the seed is enough.
    """
    nsm = Nsm(device)
    note("nsm.found", {"module": (await nsm.describe()).module_id}, "info")
    credited, generator = await seed_entropy(nsm), current_generator()
    level: Level = "info" if generator == NITRO_GENERATOR else "warning"
    note("entropy.seeded", {"credited": credited, "generator": generator}, level)
    return nsm


async def seed_entropy(nsm: Nsm) -> int:
    """Adds at least 64 bytes of GetRandom to the kernel's pool; returns how many were credited.

    Raises `NsmError` ("entropy_missing") when the module gives none or what is no entropy, such as one byte repeated; OSError.

    Where the process may not credit them (an unprivileged simulation) they are mixed in all the same, and 0 is returned: the kernel of
    that machine has long been seeded.
    """
    seed = b""
    while len(seed) < _SEED_SIZE:
        try:
            seed += await nsm.random()
        except NsmError as error:
            raise NsmError("entropy_missing", f"GetRandom failed: {error}") from error
    if len(set(seed)) < _DISTINCT_LEAST:
        raise NsmError("entropy_missing", f"GetRandom repeats itself: {len(set(seed))} different bytes of {len(seed)}")
    descriptor = os.open(_RANDOM_DEVICE, os.O_WRONLY | os.O_CLOEXEC)
    try:
        return _add(descriptor, seed)
    finally:
        os.close(descriptor)


def current_generator(path: Path = _CURRENT_GENERATOR) -> str:
    """The hardware generator that the kernel uses, `NITRO_GENERATOR` in an enclave; "none" where it has none or does not say."""
    try:
        return path.read_text(errors="replace").strip()[:_NAME_MAX] or "none"
    except OSError:
        return "none"


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
