"""/etc/resolv.conf and /etc/hosts of the customer's root: programs ask the resolver inside, and no other.

Two small files of our own, shown read-only over what the image has there. The image is a stranger's: links in it are followed as its own
programs would, and never out of it.
"""

import errno
import os
import socket
from functools import partial
from pathlib import Path, PurePosixPath

from runtime.enclave.init.kernel import MS_BIND, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY, MS_REMOUNT, bind, mount
from runtime.enclave.init.mounts import is_mounted
from runtime.enclave.init.network import RESOLVER
from runtime.enclave.init.steps import Attempt

# Without a search list a program would take what stands behind the first dot of the host name for one (resolv.conf(5)).
_RESOLV_CONF = f"nameserver {RESOLVER[0]}\nsearch .\noptions edns0\n"
_HOSTS = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"
_FLAGS = MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY
_LINKS_MAX = 16


def names_step(root: Path) -> Attempt:
    """The step "root_names", after the mounts of the customer's root and the machine's name."""
    return "root_names", partial(_show_names, root)


def _show_names(root: Path) -> bool:
    hosts = f"{_HOSTS}127.0.1.1 {socket.gethostname()}\n"
    shown = [_show(root, name, text) for name, text in (("resolv.conf", _RESOLV_CONF), ("hosts", hosts))]
    return any(shown)


def _show(root: Path, name: str, text: str) -> bool:
    target = inside(root, PurePosixPath("/etc") / name)
    if is_mounted(target):
        return False
    target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    if not target.exists():
        target.touch(mode=0o644)
    source = root / "dev" / f".{name}"  # a tmpfs of our own is there; what is shown stays when its name is gone
    source.write_text(text)
    source.chmod(0o644)
    try:
        bind(source, target)
        mount("none", target, "", MS_REMOUNT | MS_BIND | _FLAGS)
    finally:
        source.unlink()
    return True


def inside(root: Path, path: PurePosixPath) -> Path:
    """Where a process whose root is `root` finds `path`, of which nothing needs to be there. Raises OSError for a loop of links."""
    found: list[str] = []
    parts = list(reversed(path.parts[1:]))
    links = 0
    while parts:
        part = parts.pop()
        if part == "..":
            del found[-1:]
            continue
        here = root.joinpath(*found, part)
        if not here.is_symlink():
            found.append(part)
            continue
        links += 1
        if links > _LINKS_MAX:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
        to = PurePosixPath(here.readlink())
        if to.is_absolute():
            found.clear()
        parts += reversed(to.parts[1:] if to.is_absolute() else to.parts)
    return root.joinpath(*found)
