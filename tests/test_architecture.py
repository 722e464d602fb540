"""The shape of the code, kept by a test: who may import whom, what is pure, what is baked, how large a file may be."""

import ast
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RUNTIME = ROOT / "runtime"

LEVELS = {
    "protocol": 1, "settings": 1,
    "net": 2, "verifier": 2, "toml_text": 2,
    "enclave": 3, "parent": 3, "provisioner": 3, "client": 3, "image": 3,
    "simulator": 4,
    "commands": 5,
    "cli": 6,
}  # fmt: skip
"""Imports go down a level, never sideways, never up."""

SETTINGS_FILES = {"settings", "settings_rules", "toml_lines"}
PURE = {"protocol", "verifier", "settings"}
BAKED = {"protocol", "net", "enclave", "settings"}

IMPURE_MODULES = {
    "trio", "asyncio", "socket", "ssl", "OpenSSL", "h11", "httptools", "select", "selectors",
    "os", "io", "pathlib", "shutil", "tempfile", "glob", "fcntl", "mmap", "sqlite3", "importlib",
    "time", "random", "secrets", "uuid",
    "subprocess", "multiprocessing", "threading", "signal", "sys", "logging", "ctypes", "urllib",
}  # fmt: skip
IMPURE_CALLS = {"open", "print", "input", "exec", "eval", "__import__"}

THIRD_PARTY = {
    "trio", "attr", "attrs", "outcome", "sniffio", "sortedcontainers", "idna",
    "cryptography", "cffi", "_cffi_backend", "pycparser",
    "OpenSSL", "typing_extensions",
    "h11", "httptools",
}  # fmt: skip
"""The five dependencies of pyproject.toml and what they bring: all that an image holds besides our code and Python's."""

LINES_MAX = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One module of `runtime`: its file, its dotted name, and the part of the system that it belongs to ("" for the package)."""

    path: Path
    name: str
    part: str
    tree: ast.Module

    def imports(self) -> Iterator[tuple[int, str]]:
        """(line, dotted name) of every import, those inside functions included."""
        for node in ast.walk(self.tree):
            match node:
                case ast.Import(names=names):
                    yield from ((node.lineno, alias.name) for alias in names)
                case ast.ImportFrom(level=0, module=str(module), names=names):
                    yield from ((node.lineno, f"{module}.{alias.name}") for alias in names)
                case ast.ImportFrom():
                    yield node.lineno, "(relative)"
                case _:
                    pass


def source(path: Path) -> Source:
    parts = path.relative_to(ROOT).with_suffix("").parts
    names = parts[:-1] if parts[-1] == "__init__" else parts
    return Source(path=path, name=".".join(names), part=part_of(".".join(names)), tree=ast.parse(path.read_bytes()))


def part_of(module: str) -> str:
    names = module.split(".")
    part = names[1] if len(names) > 1 else ""
    return "settings" if part in SETTINGS_FILES else part


SOURCES = [source(path) for path in sorted(RUNTIME.rglob("*.py"))]
TESTS = sorted((ROOT / "tests").rglob("*.py"))


def of_parts(parts: set[str]) -> list[Source]:
    return [each for each in SOURCES if each.part in parts]


def strings_of_code(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, text) of every name and string that the program uses; comments and docstrings are left out."""
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)}
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=text) | ast.Attribute(attr=text) | ast.arg(arg=text) | ast.keyword(arg=str(text)):
                yield node.lineno, text
            case ast.FunctionDef(name=text) | ast.AsyncFunctionDef(name=text) | ast.ClassDef(name=text):
                yield node.lineno, text
            case ast.Constant(value=str(text)) if id(node) not in prose:
                yield node.lineno, text
            case ast.Constant(value=bytes(data)):
                yield node.lineno, data.decode("latin-1")
            case _:
                pass


def test_every_module_belongs_to_a_part_that_has_a_level() -> None:
    assert {each.part for each in SOURCES} - {""} <= set(LEVELS)


def test_imports_go_down_a_level_never_sideways_never_up() -> None:
    wrong = []
    for each in SOURCES:
        for line, name in each.imports():
            part = part_of(name)
            if name == "(relative)" or (
                name.startswith("runtime.") and part != each.part and LEVELS[part] >= LEVELS.get(each.part, 0)
            ):
                wrong.append(f"{each.path.relative_to(ROOT)}:{line} imports {name}")
    assert wrong == []


def test_enclave_and_parent_never_import_each_other() -> None:
    for mine, other in (("enclave", "parent"), ("parent", "enclave")):
        assert [each.name for each in of_parts({mine}) if any(part_of(name) == other for _, name in each.imports())] == []


def test_nothing_imports_the_simulator_but_the_command_line() -> None:
    importers = {each.part for each in SOURCES if any(name.startswith("runtime.simulator") for _, name in each.imports())}
    assert importers <= {"simulator", "commands", "cli"}


def test_pure_code_touches_no_clock_no_randomness_no_file_and_no_socket() -> None:
    wrong = []
    for each in of_parts(PURE):
        wrong += [f"{each.name}:{line} imports {name}" for line, name in each.imports() if name.split(".")[0] in IMPURE_MODULES]
        wrong += [
            f"{each.name}:{node.lineno} calls {node.func.id}"
            for node in ast.walk(each.tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in IMPURE_CALLS
        ]
        wrong += [
            f"{each.name}:{node.lineno} reads the clock"
            for node in ast.walk(each.tree)
            if isinstance(node, ast.Attribute)
            and node.attr in ("now", "utcnow", "today")
            and isinstance(node.value, ast.Name | ast.Attribute)
        ]
    assert wrong == []


REFUSE_WHAT_IS_NOT_BAKED = """
import importlib, importlib.abc, sys
baked, third_party, modules = (set(words.split()) for words in sys.argv[1:4])

class OnlyBaked(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname, path=None, target=None):
        top, _, rest = fullname.partition(".")
        if top == "runtime" and rest:
            allowed = rest.split(".")[0] in baked
        else:
            allowed = top == "runtime" or top in third_party or top in sys.stdlib_module_names
        if not allowed:
            raise ImportError(f"{fullname} is not baked")

sys.meta_path.insert(0, OnlyBaked())
for module in sorted(modules):
    importlib.import_module(module)
"""


def test_what_is_baked_imports_with_nothing_else_there() -> None:
    modules = {each.name for each in of_parts(BAKED)}
    assert "runtime.enclave.config" in modules
    visible = (BAKED - {"settings"}) | SETTINGS_FILES
    finished = subprocess.run(
        [sys.executable, "-c", REFUSE_WHAT_IS_NOT_BAKED, " ".join(visible), " ".join(THIRD_PARTY), " ".join(modules)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (finished.returncode, finished.stderr) == (0, "")


def test_the_import_hook_refuses_what_is_not_baked() -> None:
    for module, third_party in (("runtime.verifier", ""), ("runtime.net.hub_relay", "")):
        finished = subprocess.run(
            [sys.executable, "-c", REFUSE_WHAT_IS_NOT_BAKED, "net", third_party, module],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert finished.returncode == 1
        assert "is not baked" in finished.stderr


def test_no_baked_program_has_a_word_for_a_simulated_device() -> None:
    found = [
        f"{each.name}:{line}" for each in of_parts(BAKED) for line, text in strings_of_code(each.tree) if "simulat" in text.lower()
    ]
    assert found == []


@pytest.mark.parametrize("path", [*(each.path for each in SOURCES), *TESTS], ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_does_one_thing_and_says_what(path: Path) -> None:
    text = path.read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compile(text, path, "exec")
    assert not text or ast.get_docstring(ast.parse(text))
    assert text.count(b"\n") <= LINES_MAX
