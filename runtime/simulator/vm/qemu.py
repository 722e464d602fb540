"""Finds a QEMU that can be given a security module, and its command line for one enclave image.

Needed is the generic vhost-user device, which QEMU lets a user create from 10.2 on; older ones have it and refuse. Its name changed once
and says "test", so it is looked up.
"""

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import DEVNULL  # noqa: TID251 - a constant; the processes are trio's

import trio

from runtime.simulator.vm.nsm_device import QUEUE_SIZE, VIRTIO_ID

PROGRAM = "qemu-system-x86_64"
_GENERIC = ("vhost-user-test-device-pci", "vhost-user-device-pci")
_LIBRARIES = ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu")
_HELP_SECONDS = 60.0


class VmUnavailable(Exception):
    """This machine cannot run the virtual machine; the message says what is missing, and how to get it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Qemu:
    """A QEMU that will do: how it is started, and what its generic vhost-user device is called."""

    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    version: str
    generic_device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """The virtual machine: processors, memory in MiB, how instructions are carried out ("kvm" or "tcg")."""

    processors: int
    memory_mib: int
    accelerator: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What is booted, as files, and the sockets of the devices; `nsm` None: a machine without a security module."""

    kernel: Path
    ramdisk: Path
    command_line: str
    vsock: Path
    nsm: Path | None


def default_folder() -> Path:
    """Where scripts/vm-setup puts the QEMU of a newer Debian."""
    return Path("~/.cache/enclave-runtime/qemu").expanduser()


async def find_qemu(folder: Path) -> Qemu:
    """The QEMU in `folder`, which is the root of an unpacked Debian, else the one on PATH. Raises `VmUnavailable`."""
    command: tuple[str, ...]
    environment = {}
    if (folder / "usr/bin" / PROGRAM).exists():
        libraries = ":".join(str(folder / each) for each in _LIBRARIES)
        command = (
            *(str(folder / "usr/lib64/ld-linux-x86-64.so.2"), "--library-path", libraries, str(folder / "usr/bin" / PROGRAM)),
            *("-L", str(folder / "usr/share/qemu"), "-L", str(folder / "usr/share/seabios")),
        )
        environment = {"QEMU_MODULE_DIR": str(folder / _LIBRARIES[0] / "qemu")}
    elif found := shutil.which(PROGRAM):
        command = (found,)
    else:
        raise VmUnavailable(f"no {PROGRAM} on this machine: scripts/vm-setup gets one that will do")
    version = await _output([*command, "--version"], environment)
    devices = re.findall(r'^name "([^"]+)"', await _output([*command, "-device", "help"], environment), re.MULTILINE)
    generic = next((name for name in _GENERIC if name in devices), None)
    number = re.search(r"version ([0-9.]+)", version)
    shown = number[1] if number else "unknown"
    if generic is None:
        raise VmUnavailable(f"QEMU {shown} has no generic vhost-user device; 10.2 has: scripts/vm-setup gets one that will do")
    return Qemu(command=command, environment=environment, version=shown, generic_device=generic)


def arguments(qemu: Qemu, hardware: Hardware, parts: Parts) -> list[str]:
    """The whole command: the console is standard output, a machine that restarts ends, and there is no other device than an enclave has."""
    options = [
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-monitor", "none", "-serial", "stdio"),
        *("-M", "q35,memory-backend=mem,graphics=off,vmport=off,usb=off,hpet=off"),
        *("-accel", hardware.accelerator, "-cpu", "host" if hardware.accelerator == "kvm" else "max"),
        *("-smp", str(hardware.processors), "-m", f"{hardware.memory_mib}M"),
        # Shared, so that the devices' back ends see it.
        *("-object", f"memory-backend-memfd,id=mem,size={hardware.memory_mib}M,share=on"),
        *("-kernel", str(parts.kernel), "-initrd", str(parts.ramdisk), "-append", parts.command_line),
        *("-chardev", f"socket,id=vsock,path={_quoted(parts.vsock)}", "-device", "vhost-user-vsock-pci,chardev=vsock"),
    ]
    if parts.nsm is not None:
        device = f"{qemu.generic_device},virtio-id={VIRTIO_ID},num_vqs=1,vq_size={QUEUE_SIZE},chardev=nsm"
        options += ["-chardev", f"socket,id=nsm,path={_quoted(parts.nsm)}", "-device", device]
    return [*qemu.command, *options]


def _quoted(path: Path) -> str:
    return str(path).replace(",", ",,")


async def _output(command: list[str], environment: Mapping[str, str]) -> str:
    try:
        with trio.fail_after(_HELP_SECONDS):
            done = await trio.run_process(
                command, stdin=DEVNULL, capture_stdout=True, stderr=DEVNULL, check=False, env=dict(environment)
            )
    except (OSError, trio.TooSlowError) as error:
        raise VmUnavailable(f"{PROGRAM} cannot be run: {error}") from error
    return done.stdout.decode(errors="replace")
