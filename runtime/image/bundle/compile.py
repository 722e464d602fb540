"""Compiles a tree of sources in place, by the bundle's own interpreter, and keeps the sources not: `python -IS compile.py TREE PREFIX`.

The bytecode depends on nothing but the sources: no times (PEP 552, unchecked hashes), no folder of the build machine, and the compiler is
the interpreter that will run it. Docstrings are left out. Assertions stay: what runs is what was tested.
"""

import ast
import importlib.util
import marshal
import sys
from pathlib import Path


def main() -> int:
    """Every `*.py` below TREE becomes `*.pyc`; in a traceback it has its path below TREE, behind PREFIX."""
    tree, prefix = Path(sys.argv[1]), sys.argv[2]
    for path in sorted(tree.rglob("*.py")):
        source = path.read_bytes()
        code = compile(_without_docstrings(ast.parse(source)), prefix + str(path.relative_to(tree)), "exec", dont_inherit=True)
        head = importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little") + importlib.util.source_hash(source)
        path.with_suffix(".pyc").write_bytes(head + marshal.dumps(code))
        path.unlink()
    return 0


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        match node:
            case ast.ClassDef(body=[ast.Expr(value=ast.Constant(value=str())) as docstring, *_]):
                # A dataclass that has none writes one when it is made, and that takes longer than all else about it.
                docstring.value = ast.copy_location(ast.Constant("."), docstring)
            case (
                ast.Module(body=[ast.Expr(value=ast.Constant(value=str())), *rest] as body)
                | ast.FunctionDef(body=[ast.Expr(value=ast.Constant(value=str())), *rest] as body)
                | ast.AsyncFunctionDef(body=[ast.Expr(value=ast.Constant(value=str())), *rest] as body)
            ):
                body[:] = rest or ([] if isinstance(node, ast.Module) else [ast.copy_location(ast.Pass(), body[0])])
            case _:
                pass
    return tree


if __name__ == "__main__":
    sys.exit(main())
