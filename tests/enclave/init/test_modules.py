"""Kernel modules in the order of their list, loaded by a loader that records, and the real one where nothing can be harmed."""

import errno
import os
from pathlib import Path

import pytest

from runtime.enclave.init import kernel
from runtime.enclave.init.modules import in_order, load_modules
from runtime.enclave.init.steps import take


class Loader:
    """Remembers what it loaded, and refuses some."""

    def __init__(self, refused: dict[str, int] | None = None) -> None:
        self.loaded: list[str] = []
        self._refused = refused or {}

    def __call__(self, descriptor: int) -> None:
        text = os.read(descriptor, 100).decode()
        if text in self._refused:
            number = self._refused[text]
            raise OSError(number, os.strerror(number))
        self.loaded.append(text)


def folder_of(tmp_path: Path, *names: str, order: str | None = None) -> Path:
    for name in names:
        (tmp_path / f"{name}.ko").write_text(name)
    if order is not None:
        (tmp_path / "modules.order").write_text(order)
    return tmp_path


def test_modules_are_loaded_in_the_order_of_their_list_and_the_others_last(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "a", "b", "nsm", "vsock", order="kernel/net/vmw_vsock/vsock.ko\n\nkernel/drivers/misc/nsm.ko\n")
    (folder / "README").write_text("no module")
    loader = Loader()
    assert load_modules(folder, loader)
    assert loader.loaded == ["vsock", "nsm", "a", "b"]


def test_without_a_list_they_are_loaded_by_name(tmp_path: Path) -> None:
    loader = Loader()
    load_modules(folder_of(tmp_path, "nsm", "b", "a"), loader)
    assert loader.loaded == ["a", "b", "nsm"]


def test_an_image_may_bring_no_modules(tmp_path: Path) -> None:
    loader = Loader()
    assert not load_modules(tmp_path / "not there", loader)
    assert not load_modules(tmp_path, loader)
    assert loader.loaded == []


def test_a_module_that_the_kernel_has_already_is_no_failure(tmp_path: Path) -> None:
    loader = Loader({"nsm": errno.EEXIST})
    assert load_modules(folder_of(tmp_path, "nsm", "vsock"), loader)
    assert loader.loaded == ["vsock"]


def test_a_module_that_is_refused_keeps_no_other_from_being_loaded_and_is_named(tmp_path: Path) -> None:
    loader = Loader({"a": errno.ENOEXEC})
    with pytest.raises(OSError, match=r"a\.ko") as caught:
        load_modules(folder_of(tmp_path, "a", "nsm"), loader)
    assert (caught.value.errno, loader.loaded) == (errno.ENOEXEC, ["nsm"])


def test_a_module_that_is_listed_and_not_there_is_a_failure(tmp_path: Path) -> None:
    loader = Loader()
    folder = folder_of(tmp_path, "nsm", order="lost.ko\nnsm.ko\n")
    assert [path.name for path in in_order(folder)] == ["lost.ko", "nsm.ko"]
    report = take([("modules", lambda: load_modules(folder, loader))])
    assert [(failure.reason, failure.errno) for failure in report.failures] == [("module_refused", "ENOENT")]
    assert report.fatal is None
    assert loader.loaded == ["nsm"]


def test_the_kernel_itself_refuses_what_is_no_module(tmp_path: Path) -> None:
    """EPERM without privileges; ENOEXEC with them; ENOSYS from a kernel that has no modules."""
    report = take([("modules", lambda: load_modules(folder_of(tmp_path, "nsm"), kernel.load_module))])
    (failure,) = report.failures
    assert failure.errno in {"ENOEXEC", "EPERM", "ENOSYS"}
