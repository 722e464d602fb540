"""Whether the kernel unpacked every ramdisk to its end.

Where memory does not suffice it says "write error" on the console and starts the first process all the same, with a part of the files
missing. So the builder writes a sentinel as the *last* entry of each archive, `.enclave-complete` in the tree's top folder: the number of
the tree's entries, decimal, and a newline. Counted is every entry below the top, the sentinel included, but not these folders of the top
and what is in them: dev, proc, run, sys and tmp, which are mounted over; root, which the kernel makes; enclave and rootfs, which are
another archive's. More entries than that may be there, fewer not.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from runtime.enclave.init.steps import StepFailed

SENTINEL = ".enclave-complete"
NOT_COUNTED = frozenset({"dev", "enclave", "proc", "root", "rootfs", "run", "sys", "tmp"})
TREES = (Path("/"), Path("/rootfs"))
"""The top folders of both archives: the runtime's, the customer's."""

_SENTINEL_TEXT = re.compile(rb"[1-9][0-9]{0,8}\n")


def check_ramdisks(trees: Sequence[Path] = TREES) -> bool:
    """Whether each tree is whole; True. Raises `StepFailed` or OSError."""
    for tree in trees:
        text = (tree / SENTINEL).read_bytes()
        if not _SENTINEL_TEXT.fullmatch(text):
            raise StepFailed("ramdisk_incomplete", f"{tree / SENTINEL} holds no number")
        expected, found = int(text), count_entries(tree)
        if found < expected:
            raise StepFailed("ramdisk_incomplete", f"{tree} has {found} of {expected} entries")
    return True


def count_entries(tree: Path) -> int:
    """The entries of a tree, counted as the sentinel's are. Raises OSError."""
    count = 0
    folders = [str(tree)]
    while folders:
        folder = folders.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                if folder == str(tree) and entry.name in NOT_COUNTED:
                    continue
                count += 1
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
    return count
