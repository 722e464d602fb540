"""How the bundle's parts are chosen and treated: imports, bytecode, ELF files, packages."""

import io
import marshal
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from runtime.image.bundle import compile as compiler
from runtime.image.bundle import elf
from runtime.image.bundle.imports import Module, closure, imported
from runtime.image.bundle.packages import read_deb

SOURCES = {
    "own": "",
    "own.main": """
import first.inner as renamed
from . import sibling
from .sub import thing
if TYPE_CHECKING: import typing_only
if sys.platform == "win32": import other_system
elif sys.platform != "linux": import other_system
else: import this_system
if not typing.TYPE_CHECKING: import always
if __name__ == "__main__": import program_only
if os.name == "nt" and sys.maxsize: import other_system
def function():
    try:
        import late
    except ImportError:
        from excluded import name
""",
    "own.sibling": "from ..nowhere import x\nfrom first import inner",
    "own.sub": "from .deep.er import value",
    "own.sub.thing": "",
    "own.sub.deep": "",
    "own.sub.deep.er": "from ... import sibling as again",
    "own.unused": "import typing_only",
    **dict.fromkeys(("first", "first.inner", "typing_only", "other_system", "this_system", "always", "program_only", "late"), ""),
    **dict.fromkeys(("excluded", "excluded.name", "whole", "whole.one", "whole.two"), ""),
}
MODULES = {
    name: Module(
        name=name,
        place=name,
        data=text.encode(),
        package="own",
        is_package=any(other.startswith(f"{name}.") for other in SOURCES),
    )
    for name, text in SOURCES.items()
}


def test_what_can_be_imported_is_taken_with_its_parents_and_nothing_else() -> None:
    found = closure(MODULES, ["own.main"], without=["excluded"])
    assert set(found) == {
        *("own", "own.main", "own.sibling", "own.sub", "own.sub.thing", "own.sub.deep", "own.sub.deep.er"),
        *("first", "first.inner", "this_system", "always", "late"),
    }


def test_a_package_can_be_taken_whole_but_for_what_is_left_out() -> None:
    assert set(closure(MODULES, ["whole.*"], without=["whole.two"])) == {"whole", "whole.one"}


def test_a_root_that_is_not_there_is_an_error() -> None:
    with pytest.raises(KeyError, match="gone"):
        closure(MODULES, ["gone"], without=[])


def test_a_relative_import_starts_from_its_own_package() -> None:
    assert set(imported(MODULES["own.sub.deep.er"])) >= {"own", "own.sibling"}
    assert set(imported(MODULES["own.sub"])) >= {"own.sub.deep.er"}


SOURCE = '''"""Of the module."""
class Thing:
    """Of the class."""
    def method(self):
        """Of the method."""
    async def other(self):
        """Of another."""
        return __doc__
def fails():
    "Of the function."
    assert False, "kept"
'''


def test_bytecode_has_no_docstrings_keeps_assertions_and_names_its_place_in_an_image(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "usr/lib").mkdir(parents=True)
    (tree / "usr/lib/own.py").write_text(SOURCE)
    subprocess.run([sys.executable, "-IS", compiler.__file__, str(tree), "/"], check=True)
    assert [path.name for path in tree.rglob("*") if path.is_file()] == ["own.pyc"]
    raw = (tree / "usr/lib/own.pyc").read_bytes()
    assert raw[4:8] == b"\x01\0\0\0", "PEP 552: by hash, and never checked"
    code = marshal.loads(raw[16:])
    assert code.co_filename == "/usr/lib/own.py"
    assert b"Of " not in raw
    found: dict[str, object] = {"__name__": "own"}
    exec(code, found)
    with pytest.raises(AssertionError, match="kept"):
        found["fails"]()  # type: ignore[operator] # a function


def test_a_program_without_what_is_not_loaded_runs_and_names_the_same_libraries(tmp_path: Path) -> None:
    program = Path(shutil.which("ls") or "").resolve()
    data = program.read_bytes()
    cut = elf.without_symbols(data)
    assert len(cut) < len(data)
    assert elf.needed(cut) == elf.needed(data)
    assert "libc.so.6" in elf.needed(data)
    copy = tmp_path / "ls"
    copy.write_bytes(cut)
    copy.chmod(0o755)
    assert subprocess.run([copy, tmp_path], capture_output=True, text=True, check=True).stdout == "ls\n"


def deb(path: Path, members: dict[str, bytes | str]) -> Path:
    """Writes a Debian package: text is the target of a symbolic link."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:xz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    parts = [("debian-binary", b"2.0\n"), ("control.tar.xz", b"odd"), ("data.tar.xz", data.getvalue())]
    raw = b"!<arch>\n"
    for name, content in parts:
        raw += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode() + content + b"\n" * (len(content) % 2)
    path.write_bytes(raw)
    return path


def test_a_debian_package_is_read_with_its_links_followed(tmp_path: Path) -> None:
    members: dict[str, bytes | str] = {
        "./lib/libown.so.1.2": b"library",
        "./lib/libown.so.1": "libown.so.1.2",
        "./usr/share/doc/own/copyright": b"free",
        "./usr/share/nowhere": "gone",
        "./usr/bin/loop": "loop",
    }
    package = read_deb(deb(tmp_path / "own.deb", members), name="own", version="1", sha256="")
    assert package.files == {
        "lib/libown.so.1.2": b"library",
        "lib/libown.so.1": b"library",
        "usr/share/doc/own/copyright": b"free",
    }
    assert package.licences == {"usr/share/doc/own/copyright": "free"}


@pytest.mark.parametrize("raw", [b"", b"!<arch>\n", b"PK\x03\x04"])
def test_what_is_no_debian_package_is_refused(raw: bytes, tmp_path: Path) -> None:
    (tmp_path / "own.deb").write_bytes(raw)
    with pytest.raises(ValueError, match="Debian package"):
        read_deb(tmp_path / "own.deb", name="own", version="1", sha256="")
