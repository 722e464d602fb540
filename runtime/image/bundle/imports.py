"""Which modules a program can import, found in its source: every import statement counts, those inside functions too.

Watching a program run would be shorter and wrong: what it imports only when something fails would be missing then.
"""

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """A module that could be taken: where it goes in the bundle, what it is made of. `source` is None for a compiled one."""

    name: str
    place: str
    data: bytes
    package: str
    is_package: bool = False
    is_source: bool = True


def closure(modules: Mapping[str, Module], roots: Iterable[str], without: Iterable[str]) -> dict[str, Module]:
    """The modules that `roots` can import, themselves included. Not followed: names of `without`, and what is below them.

    A root that ends in `.*` is a package with everything in it. Raises KeyError for a root that is not there.
    """
    excluded = frozenset(without)
    found: dict[str, Module] = {}
    pending = [name for root in roots for name in _expanded(modules, root, excluded)]
    while pending:
        name = pending.pop()
        if name in found or _is_below(name, excluded):
            continue
        found[name] = module = modules[name]
        parent = name.rpartition(".")[0]
        if parent:
            pending.append(parent)
        if module.is_source:
            pending += [each for each in imported(module) if each in modules]
    return found


def imported(module: Module) -> Iterator[str]:
    """Names that a module's source may import: of modules, and of what may be a module of a package."""
    for node in _reachable(ast.parse(module.data)):
        match node:
            case ast.Import(names=names):
                for alias in names:
                    yield from _with_parents(alias.name)
            case ast.ImportFrom(module=base, names=names, level=level):
                start = ".".join(filter(None, (_relative_to(module, level), base)))
                yield from _with_parents(start)
                yield from (f"{start}.{alias.name}" for alias in names)
            case _:
                pass


def _reachable(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those that only a type checker, another system or a program started by this name would run."""
    pending = [node]
    while pending:
        node = pending.pop()
        yield node
        match node:
            case ast.If(test=test, body=body, orelse=otherwise):
                truth = _truth(test)
                pending += [] if truth is False else body
                pending += [] if truth is True else otherwise
            case _:
                pending += ast.iter_child_nodes(node)


_FACTS = {"sys.platform": "linux", "os.name": "posix", "__name__": ""}


def _truth(test: ast.expr) -> bool | None:
    """What a condition comes to on the machine that the bundle is for; None if that is not known here."""
    match test:
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            truth = _truth(operand)
            return None if truth is None else not truth
        case ast.Name() | ast.Attribute() if ast.unparse(test).rpartition(".")[2] == "TYPE_CHECKING":
            return False
        case ast.Compare(left=left, ops=[ast.Eq() | ast.NotEq() as operator], comparators=[ast.Constant(value=str(value))]):
            fact = _FACTS.get(ast.unparse(left))
            return None if fact is None else (fact == value) == isinstance(operator, ast.Eq)
        case ast.BoolOp(op=ast.And(), values=values):
            return False if False in map(_truth, values) else None
        case _:
            return None


def _relative_to(module: Module, level: int) -> str:
    """The package that a relative import of a module starts from; "" for one that is not relative."""
    if level == 0:
        return ""
    names = module.name.split(".")
    return ".".join(names[: len(names) + module.is_package - level])


def _with_parents(name: str) -> Iterator[str]:
    parts = name.split(".")
    yield from (".".join(parts[:length]) for length in range(1, len(parts) + 1))


def _expanded(modules: Mapping[str, Module], root: str, excluded: frozenset[str]) -> list[str]:
    package = root.removesuffix(".*")
    if package == root:
        return [root]
    return [name for name in modules if (name == package or name.startswith(f"{package}.")) and not _is_below(name, excluded)]


def _is_below(name: str, excluded: frozenset[str]) -> bool:
    return any(each in excluded for each in _with_parents(name))
