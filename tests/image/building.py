"""`enclave build` on a machine of its own: a folder with a kernel, a runtime and a config, and what comes of it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from runtime.cli import main
from runtime.image.eif import Eif, SectionKind, read_eif
from tests.image.containers import kernel_folder, runtime_folder
from tests.image.trees import Unpacked, unpacked

CONFIG = (Path(__file__).parents[2] / "config/enclave.toml").read_text()


@dataclass(kw_only=True)
class Bench:
    """The folder, and how commands ended there."""

    folder: Path
    captured: pytest.CaptureFixture[str]

    def place(self, name: str, data: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(data)
        return path

    def words(self, image: Path, out: str = "out.eif") -> list[str]:
        folders = ["--kernel", str(self.folder / "kernel"), "--runtime", str(self.folder / "runtime")]
        return ["build", str(image), "-c", str(self.folder / "enclave.toml"), "-o", str(self.folder / out), *folders]

    def build(self, image: Path, *options: str, out: str = "out.eif") -> dict[str, Any]:
        """What a build that goes well prints for machines."""
        assert main([*self.words(image, out), *options, "--json"]) == 0, self.captured.readouterr().err
        answer: dict[str, Any] = json.loads(self.captured.readouterr().out)
        return answer

    def refused(self, image: Path, *options: str) -> str:
        """The one line that a build which is refused says last; nothing of it is there."""
        before = listing(self.folder)
        status = main([*self.words(image), *options])
        said = self.captured.readouterr()
        assert (status, said.out) == (1, "")
        assert listing(self.folder) == before
        last = said.err.splitlines()[-1]
        assert last.startswith("enclave build: ")
        assert last.isprintable()
        return last

    def run(self, image: Path) -> str:
        """What a build that is refused says, be it one line or the words of another program."""
        assert main(self.words(image)) == 1
        return self.captured.readouterr().err

    def eif(self, out: str = "out.eif") -> Eif:
        return read_eif((self.folder / out).read_bytes())

    def ramdisk(self, number: int, out: str = "out.eif") -> dict[str, Unpacked]:
        return unpacked(bytes(self.eif(out).all_of(SectionKind.RAMDISK)[number]))


def listing(folder: Path) -> set[tuple[str, int]]:
    """Every file below a folder, and when it was changed."""
    return {(str(path), path.lstat().st_mtime_ns) for path in folder.rglob("*")}


@pytest.fixture
def bench(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Bench:
    kernel_folder(tmp_path / "kernel")
    runtime_folder(tmp_path / "runtime")
    (tmp_path / "enclave.toml").write_text(CONFIG)
    return Bench(folder=tmp_path, captured=capsys)
