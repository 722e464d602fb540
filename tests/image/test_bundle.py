"""The runtime bundle of this code: what is in it, what is not, and that it is the same whoever makes it."""

import hashlib
import json
import re
import stat
import subprocess
from pathlib import Path

import pytest

from runtime.image.bundle import elf
from tests.image.bundles import bundle, listed, make
from tests.test_architecture import BAKED, SETTINGS_FILES, THIRD_PARTY

LIBRARY = "usr/lib/python3.11/"
BYTES_MAX = 29_000_000
"""27.7 million when this was written. All of it is memory of every enclave."""

LICENSED_WITH_ANOTHER = {"enclave-runtime", "libgcc-s1", "libpython3.11-stdlib", "python3.11-minimal"}
"""Packages whose notices are in one that they depend on, which is in the list as well."""

IMPORT_ALL = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
assert "_ssl" not in sys.modules
import ctypes.util, hashlib, ssl
assert ctypes.util.find_library("pthread") == "libc.so.6"
assert hashlib.sha384(b"").hexdigest().startswith("38b060a7")
try:
    ssl.create_default_context()
except RuntimeError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def made() -> Path:
    return bundle()


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def modules(folder: Path) -> list[str]:
    """By their dotted names."""
    found = []
    for path in files(folder):
        inside = path.removeprefix(LIBRARY).removeprefix("lib-dynload/")
        if path.startswith(LIBRARY):
            found.append(
                re.sub(r"(/__init__)?(\.cpython-311-x86_64-linux-gnu\.so|\.abi3\.so|\.pyc)$", "", inside).replace("/", ".")
            )
    return sorted(found)


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs the bundle's interpreter where it lies: by its own loader with its own libraries."""
    loader = [str(folder / "lib64/ld-linux-x86-64.so.2"), "--library-path", str(folder / "lib/x86_64-linux-gnu")]
    interpreter = [*loader, str(folder / "usr/bin/python3.11"), "-IS"]
    return subprocess.run([*interpreter, *words], capture_output=True, text=True, check=False, env={})


def test_nothing_is_in_it_but_what_is_baked(made: Path) -> None:
    standard = set(json.loads(run(made, "-c", "import json, sys; print(json.dumps(list(sys.stdlib_module_names)))").stdout))
    tops = {name.split(".")[0] for name in modules(made)}
    assert tops - standard - THIRD_PARTY == {"runtime"}
    parts = {name.split(".")[1] for name in modules(made) if name.startswith("runtime.")}
    assert parts <= BAKED | SETTINGS_FILES
    outside = [path for path in files(made) if not path.startswith(LIBRARY)]
    libraries = ["c.so.6", "dl.so.2", "expat.so.1", "ffi.so.8", "gcc_s.so.1", "m.so.6", "pthread.so.0", "z.so.1"]
    assert outside == [
        "init",
        *(f"lib/x86_64-linux-gnu/lib{name}" for name in libraries),
        "lib64/ld-linux-x86-64.so.2",
        "usr/bin/python3.11",
    ]


def test_it_holds_no_source_no_second_openssl_and_no_word_for_a_simulated_device(made: Path) -> None:
    assert not [path for path in files(made) if path.endswith((".py", ".pyi", ".pyx", ".a", ".h"))]
    named = {path.removeprefix(LIBRARY) for path in files(made) if "ssl" in path.rpartition("/")[2].lower()}
    ours = {"runtime/net/openssl.pyc", "ssl.pyc"}
    assert named == {*ours, "OpenSSL/SSL.pyc", "trio/_ssl.pyc", "trio/_highlevel_ssl_helpers.pyc"}, "none of them is a library"
    assert not [path for path in files(made) if b"simulat" in (made / path).read_bytes().lower() and "/runtime/" in path]


def test_every_module_in_it_can_be_imported_there(made: Path) -> None:
    names = [name for name in modules(made) if not name.endswith("__main__")]
    assert len(names) > 400
    ended = run(made, "-c", IMPORT_ALL, *names, "runtime.enclave.__main__", "runtime.enclave.worker.__main__")
    assert (ended.stderr, ended.returncode) == ("", 0)
    assert ended.stdout == "this runtime has no ssl module: its TLS is pyOpenSSL's\n"


def test_every_file_is_listed_with_its_digest_below_its_package(made: Path) -> None:
    document = json.loads(listed(made).read_text())
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.5")
    digests = {}
    for package in document["components"]:
        assert package["licenses"] or package["name"] in LICENSED_WITH_ANOTHER, package["name"]
        for file in (each for each in package["components"] if each["type"] == "file"):
            ((algorithm, digest),) = [(each["alg"], each["content"]) for each in file["hashes"]]
            assert algorithm == "SHA-256"
            digests[file["name"].removeprefix("/")] = digest
    assert digests == {path: hashlib.sha256((made / path).read_bytes()).hexdigest() for path in files(made)}
    parts = {
        part["name"].lower(): package["name"]
        for package in document["components"]
        for part in package["components"]
        if part["type"] != "file"
    }
    assert parts["openssl"] == "cryptography", "which its wheel says itself"


def test_it_is_as_small_as_it_has_been(made: Path) -> None:
    assert sum((made / path).stat().st_size for path in files(made)) <= BYTES_MAX


def test_modes_are_those_of_an_image_and_no_elf_file_has_anything_that_is_not_loaded(made: Path) -> None:
    for path in (made, *made.rglob("*")):
        is_program = path.name in {"init", "python3.11"} or path.parent.name in {"lib64", "x86_64-linux-gnu"}
        assert stat.S_IMODE(path.stat().st_mode) == (0o755 if path.is_dir() or is_program else 0o644), path
        assert not path.is_symlink()
        if path.is_file() and (data := path.read_bytes()).startswith(elf.MAGIC):
            assert elf.without_symbols(data) == data


def test_it_is_the_same_from_another_folder_under_another_umask_time_zone_and_hash_seed(made: Path, tmp_path: Path) -> None:
    other = tmp_path / "a longer name" / "made"
    other.parent.mkdir()
    said = make(
        other, umask=0o077, environment={"TZ": "Asia/Tokyo", "PYTHONHASHSEED": "9", "LC_ALL": "C", "SOURCE_DATE_EPOCH": "7"}
    )
    assert str(other) in said
    assert files(other) == files(made)
    assert [path for path in files(made) if (made / path).read_bytes() != (other / path).read_bytes()] == []
    modes = [[path.stat().st_mode for path in sorted(folder.rglob("*"))] for folder in (made, other)]
    assert modes[0] == modes[1]
    assert listed(other).read_bytes() == listed(made).read_bytes()
