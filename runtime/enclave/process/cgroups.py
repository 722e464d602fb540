"""Control groups (cgroup v2) for the customer's processes: one for each run that has a limit, below the group of this process.

So the kernel ends an application that outgrows its memory, whole, and never the supervisor. Every failure here is soft: the caller says
so in the journal and falls back to resource limits. Names and meanings: Linux, Documentation/admin-guide/cgroup-v2.rst.
"""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

MOUNT = Path("/sys/fs/cgroup")
OWN_GROUP = Path("/proc/self/cgroup")


class CgroupUnavailable(Exception):
    """`reason` is "absent" (no cgroup v2 is mounted), "controller" (the kernel or our group lacks it) or "denied" (not ours to write)."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"no control group [{reason}]")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Cgroup:
    """The group of one run. `close` it when the run has ended."""

    path: Path

    @property
    def procs(self) -> str:
        """The file that a process writes "0" to, to be moved in."""
        return str(self.path / "cgroup.procs")

    def peak_kib(self) -> int | None:
        """The most memory that the whole group had, page cache and tmpfs included; None where the kernel (before 5.19) does not say."""
        return None if (peak := self._number("memory.peak")) is None else peak // 1024

    def oom_kills(self) -> int:
        """How many of its processes the kernel killed because `memory` was used up."""
        with suppress(OSError, ValueError):
            events = dict(line.split() for line in (self.path / "memory.events").read_text().splitlines())
            return int(events["oom_kill"]) if "oom_kill" in events else 0
        return 0

    def close(self) -> None:
        """Kills whatever the run left behind, even in a session of its own, and removes the group as soon as it is empty."""
        with suppress(OSError):
            _write(self.path / "cgroup.kill", "1")
        with suppress(OSError):
            self.path.rmdir()  # what was just killed may still be there: the next run of the same name takes the group over

    def _number(self, name: str) -> int | None:
        with suppress(OSError, ValueError):
            return int((self.path / name).read_text())
        return None


def make_cgroup(name: str, *, memory: int | None, pids: int | None, mount: Path = MOUNT, own_group: Path = OWN_GROUP) -> Cgroup:
    """A group for a run of the process `name`: at most `memory` bytes (no swap) and `pids` processes. Raises `CgroupUnavailable`."""
    base = _own_group(mount, own_group)
    wanted = [controller for controller, limit in (("memory", memory), ("pids", pids)) if limit is not None]
    _delegate(base, wanted)
    group = base / f"process-{name}"
    try:
        group.mkdir(exist_ok=True)
        if memory is not None:
            _write(group / "memory.max", str(memory))
            _write(group / "memory.oom.group", "1")
            with suppress(FileNotFoundError):  # a kernel without swap
                _write(group / "memory.swap.max", "0")
        if pids is not None:
            _write(group / "pids.max", str(pids))
    except OSError as error:
        with suppress(OSError):
            group.rmdir()
        raise CgroupUnavailable("denied") from error
    return Cgroup(group)


def _own_group(mount: Path, own_group: Path) -> Path:
    """The group that this process is in. What is above it is not ours, on a machine that we share."""
    try:
        lines = own_group.read_text().splitlines()
    except OSError:
        lines = []
    inside = next((line.removeprefix("0::") for line in lines if line.startswith("0::")), None)
    if inside is None or not (mount / "cgroup.controllers").exists():
        raise CgroupUnavailable("absent")
    return mount / inside.lstrip("/")


def _delegate(base: Path, wanted: list[str]) -> None:
    """Lets the groups below ours have the controllers. A group of a shared machine with processes in it cannot: EBUSY."""
    try:
        available = (base / "cgroup.controllers").read_text().split()
        enabled = (base / "cgroup.subtree_control").read_text().split()
    except OSError as error:
        raise CgroupUnavailable("absent") from error
    if not set(wanted) <= set(available):
        raise CgroupUnavailable("controller")
    if missing := [controller for controller in wanted if controller not in enabled]:
        try:
            _write(base / "cgroup.subtree_control", " ".join(f"+{controller}" for controller in missing))
        except OSError as error:
            raise CgroupUnavailable("denied") from error


def _write(path: Path, text: str) -> None:
    """One write to a file that the kernel made. Never creates one."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
