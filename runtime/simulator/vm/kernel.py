"""A kernel folder for `enclave build`, in the layout of nitro-cli's blobs, out of an unpacked kernel package of Debian's.

    python -m runtime.simulator.vm.kernel UNPACKED OUT

Runs on the build machine. The folder holds `bzImage`, `cmdline`, and `modules/` with uncompressed modules and `modules.order`: those that
an enclave needs and what they depend on, each behind what it depends on.
"""

import lzma
import re
import sys
from collections.abc import Callable, Iterable
from hashlib import sha256
from pathlib import Path

WANTED = ("nsm", "vmw_vsock_virtio_transport")

COMMAND_LINE = "console=ttyS0 panic=-1 reboot=t rootfstype=ramfs random.trust_cpu=on quiet"
"""`rootfstype=ramfs`: in a machine that is too small the kernel panics, where it would start with a part of the files. `reboot=t`: a triple
fault, which ends a virtual machine at once."""

_DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")


class NoKernel(Exception):
    """The package is not such a one; the message is for a person."""


def make_kernel_folder(unpacked: Path, out: Path, wanted: Iterable[str] = WANTED) -> None:
    """Fills `out`. Raises `NoKernel` or OSError."""
    kernels = sorted((unpacked / "boot").glob("vmlinuz-*"))
    if len(kernels) != 1:
        raise NoKernel(f"{len(kernels)} kernels in {unpacked / 'boot'}; one is expected")
    folder = out / "modules"
    folder.mkdir(parents=True)
    files = {_name(path): path for path in (unpacked / "usr/lib/modules").rglob("*.ko.xz")}
    modules = in_loading_order(lambda name: lzma.decompress(files[name].read_bytes()), wanted)
    (out / "bzImage").write_bytes(kernels[0].read_bytes())
    (out / "cmdline").write_text(COMMAND_LINE + "\n")
    for name, content in modules.items():
        (folder / f"{name}.ko").write_bytes(content)
    (folder / "modules.order").write_text("".join(f"{name}.ko\n" for name in modules))
    made = [path for path in sorted(out.rglob("*")) if path.is_file()]
    (out / "manifest").write_text("".join(f"{sha256(path.read_bytes()).hexdigest()}  {path.relative_to(out)}\n" for path in made))


def in_loading_order(read: Callable[[str], bytes], wanted: Iterable[str]) -> dict[str, bytes]:
    """Those that are wanted and what they depend on, each after what it depends on. `read` gives a module, or raises KeyError.

    Raises `NoKernel` for one that is not there.
    """
    order: dict[str, bytes] = {}

    def add(name: str) -> None:
        if name in order:
            return
        try:
            content = read(name)
        except KeyError:
            raise NoKernel(f"the kernel has no module {name}") from None
        found = _DEPENDS.search(content)
        for other in filter(None, found[1].decode().split(",") if found else []):
            add(other.replace("-", "_"))
        order[name] = content

    for name in wanted:
        add(name)
    return order


def _name(path: Path) -> str:
    return path.name.partition(".")[0].replace("-", "_")


def main(arguments: list[str]) -> int:
    """Exit status: 0 made, 1 not."""
    unpacked, out = map(Path, arguments)
    try:
        make_kernel_folder(unpacked, out)
    except (NoKernel, OSError) as error:
        sys.stderr.write(f"kernel: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
