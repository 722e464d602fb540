"""A machine of its own for a test: a program of Python's as PID 1 of new namespaces, in a root in which nothing is mounted yet.

    python -m tests.enclave.init.new_machine ROOT CONTENT SHARED PROGRAM [ARGUMENT...]

ROOT is an empty folder on which a tmpfs is mounted, CONTENT is copied into it, SHARED is bound to /shared in it. PROGRAM is a file of
CONTENT. What the interpreter and the tests need is bound into /usr and /root, the second of which no sentinel counts. There is no /proc.
Ends as PROGRAM does, with its status or by its signal.
"""

import os
import shutil
import signal
import site
import sys
from importlib.util import find_spec
from pathlib import Path

from runtime.simulator.namespaces import (
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUTS,
    bind,
    die_with_parent,
    make_private,
    mount,
    unshare,
)

_NAMESPACES = CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib64")
_PROJECT = Path(__file__).parents[3]


def main(arguments: list[str]) -> int:
    """Starts the machine and ends as its first process does. Raises PermissionError where namespaces are forbidden."""
    root, content, shared = (Path(argument) for argument in arguments[:3])
    interpreter = os.path.realpath(sys.executable)
    unshare(_NAMESPACES)
    first = os.fork()
    if first == 0:
        die_with_parent(signal.SIGKILL)
        make_private(Path("/"))
        _build(root, content, shared)
        os.chroot(root)
        os.chdir("/")
        os.execve(interpreter, [interpreter, "-I", *arguments[3:]], {"LEFT": "over", "HOME": "/"})
    code = os.waitstatus_to_exitcode(os.waitpid(first, 0)[1])
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


def _build(root: Path, content: Path, shared: Path) -> None:
    mount("tmpfs", root, "tmpfs")
    shutil.copytree(content, root, symlinks=True, dirs_exist_ok=True)
    for name in SYSTEM:
        show(Path(name), root)
    base = Path(sys.base_prefix)
    if not base.is_relative_to("/usr"):
        show(base, root)
    for source, name in ((_PROJECT / "runtime", "project/runtime"), (_PROJECT / "tests", "project/tests")):
        bind(source, _made(root / "root" / name))
    trio = find_spec("trio")
    assert trio is not None
    assert trio.origin is not None
    bind(Path(trio.origin).parents[1], _made(root / "root/packages"))
    bind(shared, _made(root / "shared"))
    # The interpreter finds both by a file in its own folder of packages, which an isolated one reads too.
    packages = root / site.getsitepackages([sys.base_prefix])[0].lstrip("/")
    mount("tmpfs", packages, "tmpfs")
    (packages / "test.pth").write_text("/root/project\n/root/packages\n")


def show(source: Path, root: Path) -> None:
    """Shows a folder of this machine, or its symbolic link, at the same place below `root`."""
    target = root / str(source).lstrip("/")
    if source.is_symlink():
        target.symlink_to(source.readlink())
    elif source.is_dir():
        bind(source, _made(target))


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
