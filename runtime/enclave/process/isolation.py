"""What a customer process loses between fork and exec: our root, our user, every capability, every way to gain one back.

`Isolation.apply` runs in the forked child, before exec. It only makes system calls through objects prepared beforehand: no import, no lock.
"""

import ctypes
import errno
import os
import resource
from dataclasses import dataclass

from runtime.enclave.process.oom import set_oom_score
from runtime.enclave.process.seccomp import install
from runtime.enclave.process.signals import reset_signals

_PR_CAPBSET_DROP = 24
_PR_SET_SECUREBITS = 28
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_LAST_CAPABILITY = 63
_SECUREBITS = 0b11101011
"""User 0 is nobody special (NOROOT), no ambient capabilities, KEEP_CAPS and NO_SETUID_FIXUP off; all locked. capabilities(7)."""
_OOM_SCORE = 500
"""When memory ends, the kernel takes a customer's process before anything of the runtime's."""

_libc = ctypes.CDLL(None, use_errno=True)
_NO_CAPABILITIES = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
"""_LINUX_CAPABILITY_VERSION_3 for this process; effective, permitted and inheritable, twice 32 bits each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Isolation:
    """How one process is cut off. `root` None keeps our root. `is_privileged`: we are root and can give up what root has.

    `limits` are (resource, most). `cgroup` is the file that moves a process into its control group (runtime/enclave/process/cgroups.py).
    `filter` is of system calls (runtime/enclave/process/seccomp.py).
    """

    uid: int
    gid: int
    root: str | None
    directory: str
    limits: tuple[tuple[int, int], ...]
    is_privileged: bool
    filter: bytes
    groups: tuple[int, ...] = ()
    umask: int = 0o022
    cgroup: str | None = None

    def apply(self, complaints: int) -> None:
        """Called by the child. Whatever fails here raises, and nothing is executed; why is written to the pipe `complaints`."""
        try:
            self._apply()
        except (OSError, ValueError) as error:  # setrlimit raises ValueError
            os.write(complaints, str(error).encode())
            raise

    def _apply(self) -> None:
        os.setsid()
        reset_signals()
        self.restrict()

    def restrict(self) -> None:
        """All that is taken away but for session and signals. Raises OSError or ValueError."""
        os.umask(self.umask)
        if self.cgroup is not None:
            _join(self.cgroup)
        set_oom_score(_OOM_SCORE)
        if self.is_privileged:
            self.give_up_privileges()
        else:
            os.chdir(self.directory)
            _prctl(_PR_SET_NO_NEW_PRIVS, 1)
            for kind, most in self.limits:
                if kind != resource.RLIMIT_NPROC:  # it counts all that our own user runs on this machine
                    _limit(kind, most)
            install(self.filter)

    def give_up_privileges(self) -> None:
        """Root folder, capabilities, groups, user, limits, for good. For a process that is root. Raises OSError or ValueError."""
        if self.root is not None:
            os.chroot(self.root)
        for capability in range(_LAST_CAPABILITY + 1):
            if _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
                if ctypes.get_errno() != errno.EINVAL:
                    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), "PR_CAPBSET_DROP")
                break  # past the last one that this kernel knows
        _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
        _prctl(_PR_SET_SECUREBITS, _SECUREBITS)
        os.setgroups(self.groups)
        os.setresgid(self.gid, self.gid, self.gid)
        os.setresuid(self.uid, self.uid, self.uid)
        _check(_libc.capset(*_NO_CAPABILITIES), "capset")
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
        os.chdir(self.directory)
        for kind, most in self.limits:
            _limit(kind, most)
        install(self.filter)


def _limit(kind: int, most: int) -> None:
    """Sets a limit for good; never above what this process itself has."""
    hard = resource.getrlimit(kind)[1]
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(kind, (most, most))


def _prctl(option: int, argument: int) -> None:
    _check(_libc.prctl(option, argument, 0, 0, 0), "prctl")


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


def _join(group: str) -> None:
    """Moves this process: 0 is itself."""
    descriptor = os.open(group, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, b"0")
    finally:
        os.close(descriptor)
