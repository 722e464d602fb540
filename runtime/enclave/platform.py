"""The machine underneath: where the NSM, the parent and the customer's files are. One implementation is baked: Nitro's.

The interface stands here because boot.py consumes it; what else implements it lives outside the image and is started by another program.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

from runtime.enclave.identity.nsm import NitroDevice, NsmDevice
from runtime.enclave.identity.system_clock import KernelClock, SystemClock
from runtime.enclave.init.early import Early
from runtime.enclave.init.machine import common_steps, hostname_step, power_off
from runtime.enclave.init.mounts import close_device, customer_mounts, own_mounts
from runtime.enclave.init.names import names_step
from runtime.enclave.init.network import open_low_ports
from runtime.enclave.init.steps import Report, take
from runtime.enclave.process.subreaper import become_subreaper
from runtime.net.endpoint import ANY_CID, PARENT_CID, Endpoint, Vsock

CONFIG_PATH = Path("/enclave/enclave.toml")
IMAGE_CONFIG_PATH = Path("/enclave/image.json")
ROOT_PATH = Path("/rootfs")

T = TypeVar("T")

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """What the customer's image says of itself: Entrypoint + Cmd, Env, WorkingDir, User (OCI image specification, config.md).

    `user` and `groups` are numbers: the builder has looked them up, and None is an image that names nobody. `root` is where their
    root file system is, None when it is ours too.
    """

    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=lambda: {"PATH": DEFAULT_PATH})
    directory: str = "/"
    user: tuple[int, int] | None = None
    groups: tuple[int, ...] = ()
    root: str | None = None


class Machine(Protocol):
    """What boot needs of the machine."""

    @property
    def device(self) -> NsmDevice:
        """The security module."""

    @property
    def proc(self) -> Path:
        """Where the kernel tells of memory and processes."""

    @property
    def clock(self) -> SystemClock:
        """The clock that the machine's processes read."""

    def prepare(self) -> Report:
        """Called first: the steps of init/steps.py that apply to this machine. Raises nothing; failures are in the report."""

    def set_name(self, name: str) -> Report:
        """Called when the config is known: the host name, and where the customer's programs ask for others."""

    def config_bytes(self) -> bytes:
        """enclave.toml, as baked. Raises OSError."""

    def image(self) -> ImageConfig:
        """The image's own config. Raises OSError or ValueError."""

    def parent(self, port: int) -> Endpoint:
        """A port on the parent instance."""

    def own(self, port: int) -> Endpoint:
        """A port of this enclave, to listen on."""

    def end(self) -> None:
        """Called when everything has ended: turns the machine off, where it is one."""


class NitroMachine:
    """An AWS Nitro enclave. `early` is what was done before there was time for anything else."""

    def __init__(self, early: Early) -> None:
        self._early = early
        self.device = NitroDevice()
        self.clock = KernelClock()
        self.proc = Path("/proc")

    def prepare(self) -> Report:
        """See `Machine`."""
        steps = [
            *own_mounts(),
            ("device", close_device),
            *customer_mounts(ROOT_PATH),
            *common_steps(),
            ("low_ports", open_low_ports),
        ]
        return take([*steps, ("subreaper", inherit_orphans)], self._early.report)

    def set_name(self, name: str) -> Report:
        """See `Machine`."""
        return take([hostname_step(name), names_step(ROOT_PATH)])

    def config_bytes(self) -> bytes:
        """See `Machine`."""
        return CONFIG_PATH.read_bytes()

    def image(self) -> ImageConfig:
        """See `Machine`."""
        return read_image_config(IMAGE_CONFIG_PATH.read_bytes(), root=str(ROOT_PATH))

    def parent(self, port: int) -> Endpoint:
        """See `Machine`."""
        return Vsock(PARENT_CID, port)

    def own(self, port: int) -> Endpoint:
        """See `Machine`."""
        return Vsock(ANY_CID, port)

    def end(self) -> None:
        """Powers off when we are the kernel's own first process; as a child of another init we only leave."""
        if self._early.is_kernels_init:
            power_off()


def read_image_config(raw: bytes, *, root: str | None) -> ImageConfig:
    """The image config of a JSON object with Entrypoint, Cmd, Env, WorkingDir, User ("uid:gid") and Groups. Raises ValueError."""
    from runtime.enclave.config_values import RUNTIME_UID_RANGE, User  # of the config, which is loaded after the first record

    fields = json.loads(raw)
    if not isinstance(fields, dict):
        raise ValueError("an image config is a JSON object")
    environment = dict(entry.split("=", 1) for entry in _list_of(str, fields, "Env"))
    user = User.parse(fields["User"]) if fields.get("User") else None
    groups = _list_of(int, fields, "Groups")
    if any(not 0 <= group < 2**32 - 1 or group in RUNTIME_UID_RANGE for group in groups):
        raise ValueError("Groups has a number that is no group of an image")
    return ImageConfig(
        command=(*_list_of(str, fields, "Entrypoint"), *_list_of(str, fields, "Cmd")),
        environment={"PATH": DEFAULT_PATH} | environment,
        directory=fields.get("WorkingDir") or "/",
        user=None if user is None else (user.uid, user.gid),
        groups=tuple(groups),
        root=root,
    )


def _list_of(kind: type[T], fields: Mapping[str, object], key: str) -> list[T]:
    """A list of these, empty where it is null or missing."""
    value = fields.get(key)
    if value is None:
        return []
    if not isinstance(value, list) or any(type(each) is not kind for each in value):
        raise ValueError(f"{key} is no list of {kind.__name__}")
    return value


def inherit_orphans() -> bool:
    """The step "subreaper": PID 1 inherits them anyway. Raises OSError."""
    if os.getpid() == 1:
        return False
    become_subreaper()
    return True
