"""A kernel and what belongs to it, from a folder in the layout of nitro-cli's blobs: what every image of one release has in common.

`bzImage` (or `Image`, for aarch64), `cmdline`, `nsm.ko`, `modules/*.ko` in the order of `modules/modules.order`, and `init`, which only
an image started by AWS's init needs. Modules may be compressed (.xz, .gz, .zst): the kernel gets them unpacked.
"""

import io
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from runtime.image.compressed import unpack
from runtime.image.contents import BadImage
from runtime.image.spool import Spool

COMMAND_LINE_MAX = 2047
"""Bytes; what is longer is cut by Linux on x86 (COMMAND_LINE_SIZE)."""
RAMFS = "rootfstype=ramfs"
"""Without it a machine with too little memory may boot with a part of the files, and says so on the console only."""
ORDER = "modules.order"

_HEADER_SIZE = 0x210  # of what is looked at
_KERNEL_MAX = 256 << 20
_SMALL_MAX = 64 << 20
_MODULE = re.compile(r"([A-Za-z0-9_.+-]+\.ko)(?:\.(?:xz|gz|zst))?")
_NEEDED = {
    "CONFIG_VSOCKETS": "vsock",
    "CONFIG_VIRTIO_VSOCKETS": "vmw_vsock_virtio_transport",
    "CONFIG_VIRTIO_MMIO": "virtio_mmio",
    "CONFIG_NSM": "nsm",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """`modules` by file name, in the order in which they are loaded; `init` is AWS's program, None when the folder has none."""

    image: bytes
    is_aarch64: bool
    version: str
    command_line: str
    modules: Mapping[str, bytes]
    init: bytes | None
    warnings: tuple[str, ...]

    @property
    def platform(self) -> str:
        """As images name it."""
        return "linux/arm64" if self.is_aarch64 else "linux/amd64"


def read_kernel(folder: Path) -> Kernel:
    """Reads the folder. Raises `BadImage`."""
    name = next((name for name in ("bzImage", "Image") if (folder / name).exists()), None)
    if name is None:
        raise BadImage(f"{folder}: no bzImage and no Image: a folder in the layout of nitro-cli's blobs is needed")
    image = _read(folder / name, _KERNEL_MAX)
    is_aarch64, version = _identify(image, folder / name)
    modules = _modules(folder)
    return Kernel(
        image=image,
        is_aarch64=is_aarch64,
        version=version,
        command_line=_command_line(folder / "cmdline"),
        modules=modules,
        init=_read(folder / "init", _SMALL_MAX) if (folder / "init").exists() else None,
        warnings=_warnings(folder / f"{name}.config", modules),
    )


def _identify(image: bytes, path: Path) -> tuple[bool, str]:
    """Whether it is for aarch64, and its version where it says one. Linux, Documentation/arch/x86/boot.rst and arm64/booting.rst."""
    if image[0x38:0x3C] == b"ARM\x64":
        return True, ""
    if image[0x202:0x206] != b"HdrS" or len(image) < _HEADER_SIZE:
        raise BadImage(f"{path}: no Linux kernel: neither a bzImage nor an arm64 Image")
    (at,) = struct.unpack_from("<H", image, 0x20E)
    text = image[at + 0x200 : at + 0x280].split(b"\0")[0] if at else b""
    return False, text.decode("ascii", "replace").partition(" ")[0]


def _command_line(path: Path) -> str:
    try:
        words = _read(path, 1 << 16).decode("ascii").split()
    except UnicodeDecodeError:
        raise BadImage(f"{path}: a kernel's command line is ASCII") from None
    if any(not word.isprintable() for word in words):
        raise BadImage(f"{path}: a kernel's command line is printable text")
    others = [word for word in words if word.startswith("rootfstype=") and word != RAMFS]
    if others:
        raise BadImage(f"{path}: {others[0]}: an image needs {RAMFS}")
    line = " ".join(words if RAMFS in words else [*words, RAMFS])
    if len(line) > COMMAND_LINE_MAX:
        raise BadImage(f"{path}: {len(line)} bytes; Linux takes {COMMAND_LINE_MAX}")
    return line


def _modules(folder: Path) -> dict[str, bytes]:
    """Those of modules/ in their order, and nsm.ko behind them, since it may need them."""
    found: dict[str, Path] = {}
    below = folder / "modules"
    for path in sorted(below.iterdir() if below.is_dir() else ()):
        match = _MODULE.fullmatch(path.name)
        if match is None:
            if path.name != ORDER:
                raise BadImage(f"{path}: only modules (*.ko) and {ORDER} belong there")
            continue
        if match[1] in found:
            raise BadImage(f"{path}: a module that is there twice")
        found[match[1]] = path
    if (folder / "nsm.ko").exists():
        found.setdefault("nsm.ko", folder / "nsm.ko")
    order = (below / ORDER).read_text("utf-8", "replace").splitlines() if (below / ORDER).exists() else []
    named = [match[1] for line in order if (match := _MODULE.fullmatch(line.strip().rpartition("/")[2]))]
    names = dict.fromkeys([*(name for name in named if name in found), *(name for name in found if name != "nsm.ko"), *found])
    return {name: _module(found[name]) for name in names}


def _module(path: Path) -> bytes:
    spool = Spool(io.BytesIO())
    unpacked = unpack([_read(path, _SMALL_MAX)], spool, path.name)
    spool.file.seek(0)
    data = spool.file.read()
    if unpacked.size > _SMALL_MAX or not data.startswith(b"\x7fELF"):
        raise BadImage(f"{path}: no kernel module")
    return data


def _warnings(config: Path, modules: Mapping[str, bytes]) -> tuple[str, ...]:
    """What the kernel lacks by its own config, where that is beside it."""
    if not config.exists():
        return ()
    lines = set(_read(config, 1 << 20).decode("utf-8", "replace").splitlines())
    names = {name.removesuffix(".ko").replace("-", "_") for name in modules}
    return tuple(
        f"{config.name}: {option} is not built in, and modules/ has no {module}.ko"
        for option, module in _NEEDED.items()
        if f"{option}=y" not in lines and module not in names
    )


def _read(path: Path, most: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise BadImage(f"{path}: {error.strerror}") from None
    if len(data) > most:
        raise BadImage(f"{path}: more than {most} bytes")
    return data
