"""The resource limits (setrlimit(2)) of a customer process, out of its own table, `[limits]` and what no control group keeps."""

import resource

from runtime.enclave.config import Limits
from runtime.enclave.config_process import Process

ResourceLimits = tuple[tuple[int, int], ...]
"""(resource, most), soft and hard."""


def resource_limits(process: Process, limits: Limits, *, has_cgroup: bool) -> ResourceLimits:
    """What the process gets. Without a control group its `memory` bounds the data of each process, `pids` the processes of its user."""
    own = process.rlimits
    wanted: list[tuple[int, int | None]] = [
        (resource.RLIMIT_NOFILE, own.nofile or limits.open_files),
        (resource.RLIMIT_NPROC, _least(own.nproc or limits.processes, None if has_cgroup else process.pids)),
        (resource.RLIMIT_CORE, own.core),
        (resource.RLIMIT_STACK, own.stack),
        (resource.RLIMIT_MEMLOCK, own.memlock),
        (resource.RLIMIT_DATA, _least(own.data, None if has_cgroup else process.memory)),
        (resource.RLIMIT_AS, own.address_space),
        (resource.RLIMIT_FSIZE, own.fsize),
    ]
    return tuple((kind, most) for kind, most in wanted if most is not None)


def _least(*limits: int | None) -> int | None:
    return min((limit for limit in limits if limit is not None), default=None)
