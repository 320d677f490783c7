"""What made a number: the versions of the libraries that compute, and a hash of the source it comes from."""

import ast
import hashlib
import importlib.metadata
import platform
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

LIBRARIES = ("jax", "jaxlib", "numpy", "scipy")
"""Libraries whose versions can change numbers."""
PACKAGE = "partway"


def version() -> str:
    """Partway's version; "not installed" in a checkout that is not."""
    try:
        return importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


@cache
def versions() -> dict[str, str]:
    """Versions of Partway, Python and LIBRARIES, by name."""
    libraries = {name: importlib.metadata.version(name) for name in LIBRARIES}
    return {PACKAGE: version(), "python": platform.python_version(), **libraries}


def made_by(*modules: str) -> dict[str, str]:
    """What decides numbers computed by `modules`: `versions`, and under "code" their `code_hash`."""
    return {**versions(), "code": code_hash(*modules)}


@cache
def code_hash(*modules: str) -> str:
    """Hash of the source of `modules` and of every module of Partway that they import, directly or not."""
    digest = hashlib.sha256()
    for name in import_closure(*modules):
        digest.update(name.encode() + source_file(name).read_bytes())
    return digest.hexdigest()[:32]


@cache
def package_hash() -> str:
    """Hash of the source of all of Partway: faster than that of an import closure, and changes more often.

    `scripts/commit_of.py` finds the commit that has it.
    """
    return source_hash(Path(__file__).parent)


def source_hash(package: Path) -> str:
    """`package_hash` of Partway's source in any folder."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(str(path.relative_to(package)).encode() + path.read_bytes())
    return digest.hexdigest()[:32]


@cache
def import_closure(*modules: str) -> tuple[str, ...]:
    """`modules` and the modules of Partway that they import, directly or not, sorted.

    Imports inside functions and the controllers of SCHEMES count, imports for type checkers do not. `partway` itself
    counts only where a name that is not a module is imported from it: all that it does is to export such names. Raises
    ModuleNotFoundError.
    """
    absent = next((name for name in modules if not source_file(name).is_file()), None)
    if absent:
        raise ModuleNotFoundError(f"{absent} is not a module of Partway")
    known, waiting = set[str](), [each for name in modules for each in _modules(name.split("."))]
    while waiting:
        name = waiting.pop()
        if name not in known:
            known.add(name)
            waiting += _imports(source_file(name))
    return tuple(sorted(known))


def source_file(module: str) -> Path:
    """The source file of a module of Partway, found without importing it."""
    package = Path(__file__).parent
    base = package.joinpath(*module.split(".")[1:])
    return base / "__init__.py" if base.is_dir() else base.with_suffix(".py")


@cache
def _imports(path: Path) -> tuple[str, ...]:
    """Modules of Partway that a file imports when it runs, with the packages they are in."""
    return tuple(each for name in _imported_names(ast.parse(path.read_bytes())) for each in _modules(name.split(".")))


def _imported_names(tree: ast.Module) -> Iterator[str]:
    """Dotted paths of modules, and of names imported from modules."""
    for node in [inner for outer in tree.body if not _for_types_only(outer) for inner in ast.walk(outer)]:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "controller":
            match node.args:
                case [ast.Constant(value=str(path)), *_]:  # of a row of SCHEMES, imported when the row is used
                    yield f"{PACKAGE}.controllers.{path.partition(':')[0]}"
                case _:
                    pass


def _modules(words: Sequence[str]) -> list[str]:
    """The module or the module's attribute at a dotted path: its module and the packages above, those of Partway."""
    if words[0] != PACKAGE:
        return []
    prefixes = [".".join(words[: i + 1]) for i in range(len(words))]
    return [prefix for prefix in prefixes[1:] if source_file(prefix).is_file()] or [PACKAGE]


def _for_types_only(node: ast.stmt) -> bool:
    """Whether a statement is an `if TYPE_CHECKING:`."""
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
