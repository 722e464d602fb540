"""Secrets on their way to one process: environment variables for `execve`, or sealed memory files. Never a shell, never a disk."""

import fcntl
import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field

from runtime.protocol.bundle import Secret
from runtime.protocol.errors import Refused

_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What one process gets. A file secret NAME is an open descriptor of the process and NAME_FILE says its path.

    The holder closes `descriptors` once the process has its own copies.
    """

    environment: Mapping[str, bytes] = field(repr=False)
    descriptors: tuple[int, ...] = ()

    def close(self) -> None:
        """Closes this process's copies of the descriptors."""
        for descriptor in self.descriptors:
            os.close(descriptor)


def grant(names: Iterable[str], secrets: Mapping[str, Secret], *, uid: int, gid: int) -> Grant:
    """The secrets that a process was promised by the measured config.

    Raises `Refused` with "secret_missing" for one that did not come, or OSError; nothing is left open then.
    """
    environment: dict[str, bytes] = {}
    descriptors: list[int] = []
    with ExitStack() as given_up:
        for name in names:
            if name not in secrets:
                raise Refused("secret_missing", f"the release holds no secret {name}")
            secret = secrets[name]
            if secret.delivery == "env":
                environment[name] = secret.value.reveal()
            else:
                descriptor = _sealed_file(secret, uid, gid)
                given_up.callback(os.close, descriptor)
                descriptors.append(descriptor)
                environment[f"{name}_FILE"] = f"/proc/self/fd/{descriptor}".encode()
        given_up.pop_all()
    return Grant(environment=environment, descriptors=tuple(descriptors))


def _sealed_file(secret: Secret, uid: int, gid: int) -> int:
    """A descriptor for reading of a memory file that nobody can change any more."""
    writable = os.memfd_create(secret.file_name or "secret", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with os.fdopen(os.dup(writable), "wb") as file:
            file.write(secret.value.reveal())
        fcntl.fcntl(writable, fcntl.F_ADD_SEALS, _SEALS)
        os.fchmod(writable, secret.file_mode)
        if os.geteuid() == 0:  # else all processes are of our own user, and so is the file
            os.fchown(writable, uid, gid)
        return os.open(f"/proc/self/fd/{writable}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(writable)
