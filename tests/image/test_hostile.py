"""Whatever an image holds, `enclave build` says in one line what is wrong with it, exits with 1, and leaves nothing behind."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.cli import main
from runtime.commands import build
from runtime.image import archive, container, contents, layers
from runtime.image.bundle.make import Made
from runtime.image.contents import BadImage
from runtime.image.outputs import all_or_nothing
from tests.image.building import Bench, bench, listing
from tests.image.containers import ROOT, Oci, packed
from tests.image.hostile import ALL, Hostile
from tests.image.trees import file, layer

__all__ = ["bench"]


def test_there_are_more_than_sixty_of_them_and_each_has_a_name_of_its_own() -> None:
    assert len({each.name for each in ALL}) == len(ALL) > 60


@pytest.mark.parametrize("hostile", ALL, ids=lambda hostile: hostile.name)
def test_a_hostile_image_is_one_clear_error_and_nothing_is_written(bench: Bench, hostile: Hostile) -> None:
    said = bench.refused(bench.place("image.tar", hostile.make()))
    assert hostile.words in said
    assert len(said) < 600


def test_more_entries_than_any_image_has_are_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (archive, contents, layers):
        monkeypatch.setattr(module, "ENTRIES_MAX", 50)
    many = [file(f"f{number}", b"") for number in range(60)]
    assert "more than 50" in bench.refused(bench.place("root.tar", layer(*many)))
    assert "more than 50" in bench.refused(bench.place("app.tar", Oci(layers=[packed(*many)]).tar()))
    assert "more than 50" in bench.refused(bench.place("two.tar", Oci(layers=[packed(*many[:40]), packed(*many[20:])]).tar()))


def test_folders_that_no_entry_is_of_count_when_they_are_made(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "ENTRIES_MAX", 50)
    deep = file("/".join(["d"] * 60), b"")
    assert "more than 50" in bench.refused(bench.place("root.tar", layer(deep)))
    assert "more than 50" in bench.refused(bench.place("hidden.tar", Oci(layers=[packed(deep, file(".wh.d", b""))]).tar()))


def test_all_layers_together_have_a_limit(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "UNPACKED_MAX", 30_000)
    assert "grow to more than" in bench.refused(bench.place("app.tar", Oci(layers=[packed(*ROOT)] * 4).tar()))


def test_a_root_folder_that_has_a_dockerfile_is_no_context(bench: Bench) -> None:
    place = bench.folder / "root"
    (place / "etc").mkdir(parents=True)
    (place / "Dockerfile").write_text("FROM debian\n")
    bench.build(place)
    assert "rootfs/Dockerfile" in bench.ramdisk(1)


def test_a_layout_folder_leads_to_nothing_outside_it(bench: Bench) -> None:
    place = Oci(layers=[packed(*ROOT)]).write(bench.folder / "layout")
    blob = max((place / "blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
    blob.replace(bench.folder / "elsewhere")
    blob.symlink_to(bench.folder / "elsewhere")
    assert "no file of this folder" in bench.refused(place)


def test_a_root_folder_that_cannot_be_read_and_a_pipe_are_errors(bench: Bench) -> None:
    os.mkfifo(bench.folder / "pipe")
    assert "pipe" in bench.refused(bench.folder / "pipe")
    assert "absent" in bench.refused(bench.folder / "absent")


def test_what_was_there_stays_when_a_build_fails(bench: Bench) -> None:
    image = bench.place("app.tar", layer(*ROOT))
    bench.build(image)
    before = (bench.folder / "out.eif").read_bytes()
    bench.refused(bench.place("bad.tar", ALL[0].make()))
    assert (bench.folder / "out.eif").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("bzImage", b"no kernel", "no Linux kernel"),
        ("bzImage", bytes(0x202) + b"HdrS", "no Linux kernel"),
        ("cmdline", b"rootfstype=tmpfs", "rootfstype=tmpfs"),
        ("cmdline", b"\xff", "ASCII"),
        ("cmdline", b"x" * 3000, "2047"),
        ("cmdline", b"a\0b", "printable"),
        ("nsm.ko", b"no module", "no kernel module"),
        ("modules/README", b"", "only modules"),
        ("../runtime/enclave", b"", "builder's to make"),
        ("../runtime/usr/bin/python3.11", b"\x7fELF".ljust(18, b"\0") + b"\xb7\0", "different processors"),
    ],
)
def test_a_kernel_or_runtime_that_cannot_be_is_refused(bench: Bench, name: str, data: bytes, words: str) -> None:
    path = bench.folder / "kernel" / name
    path.write_bytes(data)
    assert words in bench.refused(bench.place("root.tar", layer(*ROOT)))


def test_a_mistake_on_the_command_line_is_told_from_a_bad_image(tmp_path: Path) -> None:
    assert main(["build", "app.tar"]) == 2
    assert main(["build", "app.tar", "-c", "e.toml"]) == 2
    assert main(["build", str(tmp_path / "absent.toml")]) == 2


def test_a_result_is_there_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"before")

    def parts() -> Iterator[bytes]:
        yield b"half"
        raise BadImage("the rest is missing")

    def fail() -> None:
        with all_or_nothing() as outputs:
            outputs.write(tmp_path / "b", [b"whole"])
            outputs.write(tmp_path / "a", parts())

    with pytest.raises(BadImage):
        fail()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"before"}


def test_no_result_is_placed_where_one_of_them_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()

    def place() -> None:
        with all_or_nothing() as outputs:
            outputs.write(tmp_path / "a", [b"whole"])
            outputs.write(tmp_path / "b", [b"whole"])

    with pytest.raises(IsADirectoryError):
        place()
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_of_two_first_builds_at_once_the_later_takes_the_bundle_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    theirs: list[Path] = []

    async def make(out: Path, inputs: Path, _: object) -> Made:
        for folder in (out, inputs.parent / f"bundle-{build._code_digest()[:16]}"):
            folder.mkdir()
            (folder / "init").write_text(str(folder))
        theirs.append(folder)
        (out.parent / "list").write_text("{}")
        return Made(files={}, sbom=out.parent / "list")

    monkeypatch.setattr(build, "make", make)
    found = build._own_runtime()
    assert [found] == theirs
    assert (found / "init").read_text() == str(found)
    assert not list(found.parent.glob(".bundle.*"))


def test_a_build_that_is_asked_to_end_leaves_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """While its first result is written already, and not in its place."""
    words = bench.words(bench.place("root.tar", layer(*ROOT)))
    before = listing(bench.folder)
    handler = signal.getsignal(signal.SIGTERM)
    pending: list[Path] = []

    def write_sbom(*_: object) -> bytes:
        pending.extend(bench.folder.glob(".out.*"))
        os.kill(os.getpid(), signal.SIGTERM)
        return b""

    monkeypatch.setattr(build, "write_sbom", write_sbom)
    with pytest.raises(SystemExit) as raised:
        main(words)
    assert raised.value.code == 143
    assert len(pending) == 1
    assert listing(bench.folder) == before
    assert signal.getsignal(signal.SIGTERM) == handler
