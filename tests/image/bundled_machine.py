"""A machine that holds a runtime bundle, a customer's ramdisk and nothing else: PID 1 of new namespaces, before anything is mounted.

    python -m tests.image.bundled_machine ROOT BUNDLE CONTENT SHARED COMMAND [WORD...]

A tmpfs on the empty folder ROOT gets what BUNDLE and CONTENT hold, the three device nodes, and both sentinels, as `enclave build` places
them. SHARED is bound to /root/shared, and the project's code to /root/project, for programs of tests; no sentinel counts them, and no
module is found there unasked. Ends as COMMAND does, with its status or by its signal; SIGTERM is passed on to it.
"""

import os
import shutil
import signal
import stat
import sys
from pathlib import Path

from runtime.enclave.init.ramdisk import SENTINEL, count_entries
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
_PROJECT = Path(__file__).parents[2]
_NODES = (("console", 0o600, 5, 1), ("null", 0o666, 1, 3), ("urandom", 0o444, 1, 9))


def main(arguments: list[str]) -> int:
    """Starts the machine and ends as its first process does."""
    root, bundle, content, shared = (Path(argument) for argument in arguments[:4])
    command = arguments[4:]
    unshare(_NAMESPACES)
    first = os.fork()
    if first == 0:
        die_with_parent(signal.SIGKILL)
        make_private(Path("/"))
        build(root, bundle, content, shared)
        os.chroot(root)
        os.chdir("/")
        os.execve(command[0], command, {"LEFT": "over", "PYTHONPATH": "/root/project"})
    signal.signal(signal.SIGTERM, lambda number, _frame: os.kill(first, number))
    code = os.waitstatus_to_exitcode(os.waitpid(first, 0)[1])
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


def build(root: Path, bundle: Path, content: Path, shared: Path) -> None:
    """Makes the machine's root."""
    mount("tmpfs", root, "tmpfs")
    for source in (bundle, content):
        shutil.copytree(source, root, symlinks=True, dirs_exist_ok=True)
    for name in ("dev", "proc", "sys", "run", "tmp", "root/shared", "root/project", "rootfs"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for name, mode, major, minor in _NODES:
        os.mknod(root / "dev" / name, stat.S_IFCHR | mode, os.makedev(major, minor))
    for tree in (root / "rootfs", root):
        (tree / SENTINEL).write_text(f"{count_entries(tree) + 1}\n")
    bind(shared, root / "root/shared")
    bind(_PROJECT, root / "root/project")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
