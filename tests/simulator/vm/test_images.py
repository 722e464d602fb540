"""What is read of an image and of a kernel's package before anything boots."""

import gzip
import lzma
from pathlib import Path

import pytest

from runtime.image.contents import Body, Node, Tree
from runtime.image.cpio import write_cpio
from runtime.protocol.errors import Malformed
from runtime.simulator.vm.kernel import NoKernel, in_loading_order, make_kernel_folder
from runtime.simulator.vm.ramdisk import find_file

WHERE = b"enclave/enclave.toml"


def archive(**files: bytes) -> bytes:
    tree = Tree()
    for name, data in files.items():
        tree.put(name.replace("__", "/").encode(), Node(mode=0o100644, body=Body(size=len(data), data=data)))
    return b"".join(write_cpio(tree, lambda body: iter([body.data or b""])))


def test_a_file_is_found_in_whichever_ramdisk_it_is_plain_or_gzip_and_the_last_one_counts() -> None:
    first, second = archive(other=b"x"), archive(**{"enclave__enclave.toml": b"two"})
    assert find_file([first, second], WHERE) == b"two"
    assert find_file([gzip.compress(second), first], WHERE) == b"two"
    assert find_file([archive(**{"enclave__enclave.toml": b"one"}), second], WHERE) == b"two"
    assert find_file([first], WHERE) is None


@pytest.mark.parametrize(
    "raw",
    [b"no archive", archive(a=b"body")[:112], archive(a=b"body").replace(b"00000004", b"0000000g", 1), b"\x1f\x8bnot gzip"],
    ids=["no archive", "cut off", "a bad number", "no gzip"],
)
def test_a_ramdisk_that_is_none_is_refused(raw: bytes) -> None:
    with pytest.raises(Malformed):
        find_file([raw], WHERE)


def module(depends: str) -> bytes:
    return b"\x7fELF\0license=GPL\0depends=" + depends.encode() + b"\0rest"


def test_modules_are_loaded_after_what_they_depend_on() -> None:
    modules = {"nsm": module(""), "a": module("b,c-d"), "b": module("c-d"), "c_d": module("")}
    assert list(in_loading_order(modules.__getitem__, ("nsm", "a"))) == ["nsm", "c_d", "b", "a"]
    with pytest.raises(NoKernel, match="no module missing"):
        in_loading_order(modules.__getitem__, ("missing",))


def test_a_kernel_folder_has_what_a_builder_looks_for(tmp_path: Path) -> None:
    unpacked, out = tmp_path / "root", tmp_path / "out"
    (unpacked / "boot").mkdir(parents=True)
    (unpacked / "boot/vmlinuz-6").write_bytes(b"kernel")
    folder = unpacked / "usr/lib/modules/6/kernel"
    folder.mkdir(parents=True)
    for name, depends in (("nsm", ""), ("vmw-vsock-virtio-transport", "vsock"), ("vsock", "")):
        (folder / f"{name}.ko.xz").write_bytes(lzma.compress(module(depends)))
    make_kernel_folder(unpacked, out)
    assert (out / "bzImage").read_bytes() == b"kernel"
    assert "rootfstype=ramfs" in (out / "cmdline").read_text()
    assert (out / "modules/modules.order").read_text() == "nsm.ko\nvsock.ko\nvmw_vsock_virtio_transport.ko\n"
    assert (out / "modules/vsock.ko").read_bytes() == module("")
    assert len((out / "manifest").read_text().splitlines()) == 6
    with pytest.raises(NoKernel, match="0 kernels"):
        make_kernel_folder(tmp_path / "empty", tmp_path / "none")
