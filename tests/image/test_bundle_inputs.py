"""What the bundle is made of: pinned, looked for in a folder first, and refused when it is something else."""

import hashlib
import tomllib
from pathlib import Path

import pytest

from runtime.cli import main
from runtime.image.bundle.inputs import obtain
from runtime.image.bundle.lock import BundleFailed, Locked, read_lock, written_lock
from runtime.image.bundle.make import make
from runtime.image.bundle.renew import DEBIAN, WHEELS, wanted_wheels
from tests.image.bundles import PROJECT

DATA = b"a package"
DEB = Locked(kind="deb", name="own", version="1.0-1", file="own_1.0-1_amd64.deb", sha256=hashlib.sha256(DATA).hexdigest())
WHEEL = Locked(kind="pypi", name="own", version="1.0", file="own-1.0-py3-none-any.whl", sha256=hashlib.sha256(DATA).hexdigest())


class Said(list[str]):
    """What a person is told."""

    def __call__(self, text: str) -> None:
        self.append(text)


def fake(monkeypatch: pytest.MonkeyPatch, folder: Path, name: str, script: str) -> None:
    """Makes `name` the only program that there is."""
    programs = folder / "programs"
    programs.mkdir(exist_ok=True)
    (programs / name).write_text(f"#!/bin/sh\n{script}\n")
    (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setattr("sys.executable", str(programs / name))


async def test_what_is_in_the_folder_is_used_and_nothing_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, tmp_path, "none", "exit 1")
    for package in (DEB, WHEEL):
        (tmp_path / package.file).write_bytes(DATA)
    said = Said()
    await obtain([DEB, WHEEL], tmp_path, said)
    assert said == []


@pytest.mark.parametrize("init", ["#!/bin/sh\nexec /sbin/init\n", "#!/usr/bin/python3.11 -IS\nprint()\n", None])
async def test_a_folder_that_is_no_bundle_is_left_as_it_is(tmp_path: Path, init: str | None) -> None:
    place = tmp_path / "out"
    place.mkdir()
    if init is None:
        (place / "init").symlink_to("/sbin/init")
    else:
        (place / "init").write_text(init)
    (place / "precious").write_text("kept")
    with pytest.raises(BundleFailed, match="is no bundle"):
        await make(place, tmp_path, Said())
    assert (place / "precious").read_text() == "kept"


async def test_what_is_missing_is_downloaded_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, tmp_path, "apt-get", f'echo "$*" > asked; printf "%s" "{DATA.decode()}" > {DEB.file}')
    said = Said()
    await obtain([DEB], tmp_path / "new" / "inputs", said)
    assert (tmp_path / "new/inputs" / DEB.file).read_bytes() == DATA
    assert (tmp_path / "new/inputs/asked").read_text() == "-q download own=1.0-1\n"
    assert said == [f"downloading 1 Debian packages and 0 wheels into {tmp_path}/new/inputs"]


async def test_what_comes_with_another_digest_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, tmp_path, "apt-get", f'printf "evil" > {DEB.file}')
    with pytest.raises(BundleFailed, match=r"own_1\.0-1_amd64\.deb is not the file of the lock"):
        await obtain([DEB], tmp_path / "inputs", Said())


@pytest.mark.parametrize("package", [DEB, WHEEL])
async def test_a_package_that_cannot_be_had_says_what_to_do(
    package: Locked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(monkeypatch, tmp_path, "apt-get", 'echo "E: Version 1.0 was not found" >&2; exit 100')
    with pytest.raises(BundleFailed) as caught:
        await obtain([package], tmp_path / "inputs", Said())
    for words in (package.file, "E: Version 1.0 was not found", "--from", "scripts/lock-bundle"):
        assert words in str(caught.value)
    assert list((tmp_path / "inputs").iterdir()) == [], "no half of a download is left"


async def test_a_machine_without_apt_get_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, tmp_path, "none", "exit 1")
    with pytest.raises(BundleFailed, match="apt-get is not installed"):
        await obtain([DEB], tmp_path / "inputs", Said())


@pytest.mark.parametrize("text", ["", "deb = 1\npypi = 2\n", "[[deb]]\nname = 'own'\n", "not a lock"])
def test_a_lock_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "bundle.lock"
    path.write_text(text)
    with pytest.raises(BundleFailed, match="no lock of a bundle"):
        read_lock(path)


def test_the_lock_is_as_its_writer_writes_it_and_complete() -> None:
    lock = read_lock()
    path = PROJECT / "runtime/image/bundle/bundle.lock"
    assert written_lock(lock) == path.read_text()
    assert {each.name for each in lock if each.kind == "deb"} == set(DEBIAN)
    assert {each.name for each in lock if each.kind == "pypi"} == set(WHEELS)


def test_the_wheels_are_those_that_the_project_is_tested_with() -> None:
    lines = {line.partition("==")[0]: line for line in wanted_wheels((PROJECT / "requirements.lock").read_text())}
    for each in read_lock():
        if each.kind == "pypi":
            assert f"=={each.version} " in lines[each.name], "scripts/lock-bundle brings the bundle up to requirements.lock"
            assert f"sha256:{each.sha256}" in lines[each.name]


def test_every_dependency_of_the_project_is_in_the_bundle() -> None:
    wanted = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert {requirement.partition(">=")[0] for requirement in wanted} <= set(WHEELS)


@pytest.mark.parametrize("out", ["photos", ".", "photos/../photos/"])
def test_a_folder_that_is_no_bundle_is_not_overwritten(
    out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/one").write_text("kept")
    fake(monkeypatch, tmp_path, "none", "exit 1")
    monkeypatch.chdir(tmp_path)
    assert main(["bundle", out]) == 1
    folder = (tmp_path / out).resolve()
    assert capsys.readouterr().err == f"enclave bundle: {folder} is there and is no bundle: it would be overwritten\n"
    assert (tmp_path / "photos/one").read_text() == "kept"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "programs"]
