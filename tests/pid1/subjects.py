"""The first processes under test, each as the words to put before a command."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

NOT_INSTALLED = "not installed"

GRACE = 1.0
"""Seconds between TERM and KILL, for those that know such a thing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """`outside` makes the place for `program`, the first process.

    `target` and `supervisor`: how many generations below the started process is the one that gets the signals, and PID 1.
    `package`: Debian's, None for ours. `is_main`: of ours, the one that has every check in full length.
    """

    name: str
    outside: tuple[str, ...] = ()
    program: tuple[str, ...]
    target: int
    supervisor: int = 1
    package: str | None = None
    is_main: bool = False

    @property
    def is_ours(self) -> bool:
        return self.package is None

    @property
    def is_thorough(self) -> bool:
        """Whether it is started hundreds of times: of ours, each of which takes a fifth of a second, only one is."""
        return self.is_main or not self.is_ours


_AS_FIRST = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child", *(() if os.geteuid() == 0 else ("--map-root-user",)))
_WITHOUT_NAMESPACES = ("setpriv", "--bounding-set=-sys_admin")
_OURS = (str(Path(sys.executable).parent / "enclave"), "simulate", "--only-process", "--stop-grace", f"{GRACE:g}s", "--")

SUBJECTS = (
    Subject(name="enclave", program=_OURS, target=0, is_main=True),
    Subject(name="as PID 1", outside=_AS_FIRST, program=_OURS, target=1),
    Subject(name="subreaper", outside=_WITHOUT_NAMESPACES, program=_OURS, target=0),
    Subject(name="tini", outside=_AS_FIRST, program=("tini", "-s", "--"), target=1, package="tini"),
    Subject(name="tini -g", outside=_AS_FIRST, program=("tini", "-s", "-g", "--"), target=1, package="tini"),
    Subject(name="dumb-init", outside=_AS_FIRST, program=("dumb-init", "--"), target=1, package="dumb-init"),
)
"""Ours in its three places: behind its launcher in namespaces of its own; where it is PID 1 already; where namespaces are forbidden."""


@cache
def why_not(subject: Subject) -> str:
    """Why a subject cannot be run on this machine, or nothing."""
    if any(shutil.which(words[0]) is None for words in (subject.outside, subject.program) if words):
        return NOT_INSTALLED
    finished = subprocess.run(
        [*subject.outside, *subject.program, "true"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    return "" if finished.returncode == 0 else f"does not start here: {finished.stderr.strip()}"
