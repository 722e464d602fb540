"""What a customer process loses between fork and exec: our root, our user, every capability, every way to gain one back.

`Isolation.apply` runs in the forked child, before exec. It only makes system calls through objects prepared beforehand: no import, no lock.
"""

import ctypes
import os
import resource
import signal
from dataclasses import dataclass

from runtime.enclave.process.seccomp import install

_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_LAST_CAPABILITY = 63

_libc = ctypes.CDLL(None, use_errno=True)
_SIG_DFL = None
_DEFAULT_SIGNALS = [number for number in signal.valid_signals() if number not in (signal.SIGKILL, signal.SIGSTOP)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Isolation:
    """How one process is cut off. `root` None keeps our root. `is_privileged`: we are root and can give up what root has.

    `filter` is of system calls (runtime/enclave/process/seccomp.py).
    """

    uid: int
    gid: int
    root: str | None
    directory: str
    open_files: int
    processes: int
    is_privileged: bool
    filter: bytes

    def apply(self, complaints: int) -> None:
        """Called by the child. Whatever fails here raises, and nothing is executed; why is written to the pipe `complaints`."""
        try:
            self._apply()
        except (OSError, ValueError) as error:  # setrlimit raises ValueError
            os.write(complaints, str(error).encode())
            raise

    def _apply(self) -> None:
        os.setsid()
        for number in _DEFAULT_SIGNALS:
            _libc.signal(number, _SIG_DFL)  # signal.signal wants the main thread, and the fork may come from another
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.umask(0o022)
        if self.is_privileged:
            self.give_up_privileges()
        else:
            os.chdir(self.directory)
            _prctl(_PR_SET_NO_NEW_PRIVS, 1)
            install(self.filter)

    def give_up_privileges(self) -> None:
        """Limits, root folder, capabilities, groups, user, for good. For a process that is root. Raises OSError or ValueError."""
        _limit(resource.RLIMIT_NOFILE, self.open_files)
        _limit(resource.RLIMIT_NPROC, self.processes)
        _limit(resource.RLIMIT_CORE, 0)
        if self.root is not None:
            os.chroot(self.root)
        for capability in range(_LAST_CAPABILITY + 1):
            if _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
                break  # past the last one that this kernel knows
        _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
        os.setgroups([])
        os.setresgid(self.gid, self.gid, self.gid)
        os.setresuid(self.uid, self.uid, self.uid)
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
        os.chdir(self.directory)
        install(self.filter)


def _limit(kind: int, most: int) -> None:
    """Sets a limit for good; never above what this process itself has."""
    hard = resource.getrlimit(kind)[1]
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(kind, (most, most))


def _prctl(option: int, argument: int) -> None:
    if _libc.prctl(option, argument, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "prctl")
