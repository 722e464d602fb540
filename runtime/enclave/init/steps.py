"""The machine's first steps: how each may fail, and what is told of it. One table, which the page beside the code repeats.

A *fatal* failure ends the boot with its reason; a *soft* one is journalled, and the boot goes on. Both are printed on the console at
once, since nobody may be there yet to be told otherwise.
"""

import errno
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

Severity = Literal["fatal", "soft"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step: what its failure means, and the reasons it may have; the first is for an error of the system."""

    name: str
    does: str
    severity: Severity
    reasons: tuple[str, ...]


def _step(name: str, severity: Severity, reasons: str, does: str) -> Step:
    return Step(name=name, does=does, severity=severity, reasons=tuple(reasons.split()))


STEPS = (
    _step("proc", "fatal", "mount_proc", "mount proc on /proc"),
    _step("dev", "fatal", "mount_dev", "mount devtmpfs on /dev"),
    _step("console", "soft", "console_missing", "open descriptors 0, 1 and 2 where the kernel did not"),
    _step("modules", "soft", "module_refused", "load the modules that the image brings"),
    _step(
        "heartbeat",
        "soft",
        "heartbeat_unavailable heartbeat_timeout heartbeat_closed heartbeat_wrong",
        "exchange the platform's heartbeat with the parent, once, within 10 s",
    ),
    _step("ramdisk", "fatal", "ramdisk_incomplete", "find both ramdisks complete"),
    _step("sys", "soft", "mount_sys", "mount sysfs on /sys"),
    _step("pts", "soft", "mount_pts", "mount devpts on /dev/pts"),
    _step("shm", "soft", "mount_shm", "mount tmpfs on /dev/shm"),
    _step("run", "soft", "mount_run", "mount tmpfs on /run"),
    _step("tmp", "soft", "mount_tmp", "mount tmpfs on /tmp"),
    _step("cgroup", "soft", "mount_cgroup", "mount cgroup2 on /sys/fs/cgroup"),
    _step("device", "fatal", "device_open", "leave the security module's device to root alone"),
    _step("root", "fatal", "mount_root", "make the customer's root a mount in which no device node and no set-user-ID bit works"),
    _step(
        "root_proc",
        "fatal",
        "mount_root_proc",
        "mount proc in the customer's root: each user sees their own processes, what governs the machine is read-only",
    ),
    _step("root_sys", "soft", "mount_root_sys", "mount sysfs in the customer's root, read-only"),
    _step("root_dev", "fatal", "mount_root_dev", "give the customer's root a /dev of its own, with harmless devices only"),
    _step("root_pts", "soft", "mount_root_pts", "mount devpts on /dev/pts of the customer's root"),
    _step("root_shm", "soft", "mount_root_shm", "mount tmpfs on /dev/shm of the customer's root"),
    _step("root_run", "soft", "mount_root_run", "mount tmpfs on /run of the customer's root, where the image has nothing there"),
    _step("root_tmp", "soft", "mount_root_tmp", "mount tmpfs on /tmp of the customer's root, where the image has nothing there"),
    _step("loopback", "fatal", "loopback_down", "set loopback up and connect over 127.0.0.1"),
    _step("loopback_ipv6", "soft", "loopback_ipv6_down", "connect over ::1"),
    _step("limits", "soft", "limits_refused", "raise the limit of open files as far as the kernel lets; allow no core dumps"),
    _step("low_ports", "soft", "low_ports_refused", "let every user listen on ports below 1024"),
    _step("subreaper", "fatal", "subreaper_refused", "inherit orphans, where this is not PID 1"),
    _step("hostname", "soft", "hostname_refused", "name the machine as `enclave.id` says"),
    _step("root_names", "soft", "mount_root_names", "give the customer's root an /etc/resolv.conf and an /etc/hosts of its own"),
)
"""In the order in which they are taken."""

BY_NAME = {step.name: step for step in STEPS}

Attempt = tuple[str, Callable[[], bool]]
"""The name of a step, and what takes it: True when it was taken, False when there was nothing to do and all is left as it was."""


class StepFailed(Exception):
    """A step failed for another than its first reason."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One step that failed. `errno` is the system's name of the error, such as "EPERM", or ""; `detail` is for the console alone."""

    step: str
    reason: str
    errno: str
    detail: str

    @property
    def is_fatal(self) -> bool:
        """Whether the boot ends with it."""
        return BY_NAME[self.step].severity == "fatal"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What became of the steps, by name. A fatal failure is the last one, as no step follows it."""

    taken: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    failures: tuple[Failure, ...] = ()

    @property
    def fatal(self) -> Failure | None:
        """The failure that ends the boot."""
        return next((failure for failure in self.failures if failure.is_fatal), None)


def take(attempts: Iterable[Attempt], before: Report | None = None) -> Report:
    """Takes steps one after the other, up to the first fatal failure, which may be one of the report `before`."""
    before = before or Report()
    taken, left, failures = list(before.taken), list(before.left), list(before.failures)
    is_over = before.fatal is not None
    for name, attempt in attempts:
        if is_over:
            break
        try:
            (taken if attempt() else left).append(name)
        except (OSError, StepFailed) as error:
            failure = _failure(name, error)
            failures.append(failure)
            is_over = failure.is_fatal
            _tell_console(failure)
    return Report(taken=tuple(taken), left=tuple(left), failures=tuple(failures))


def _failure(name: str, error: OSError | StepFailed) -> Failure:
    reasons = BY_NAME[name].reasons
    if isinstance(error, StepFailed):
        assert error.reason in reasons
        return Failure(step=name, reason=error.reason, errno="", detail=str(error))
    return Failure(step=name, reason=reasons[0], errno=errno.errorcode.get(error.errno or 0, ""), detail=str(error))


def _tell_console(failure: Failure) -> None:
    if sys.stderr is not None:  # it is None where the kernel found no console, and the step that opens one comes too late or failed
        sys.stderr.write(f"enclave: {failure.step}: {failure.detail} [{failure.reason}]\n")
        sys.stderr.flush()
