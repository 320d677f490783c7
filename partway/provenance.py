"""What made a number: the versions of the libraries that compute, and a hash of the source it comes from."""

import ast
import hashlib
import importlib.metadata
import platform
from collections.abc import Iterator
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
    """Versions of Partway, Python and LIBRARIES."""
    libraries = {name: importlib.metadata.version(name) for name in LIBRARIES}
    return {PACKAGE: version(), "python": platform.python_version(), **libraries}


@cache
def code_hash(*modules: str) -> str:
    """Hash of the source of `modules` and of every module of Partway that they import, directly or not."""
    digest = hashlib.sha256()
    for name in import_closure(*modules):
        digest.update(name.encode() + source_file(name).read_bytes())
    return digest.hexdigest()[:32]


@cache
def package_hash() -> str:
    """Hash of the source of all of Partway: faster than that of an import closure, and changes more often."""
    digest, package = hashlib.sha256(), Path(__file__).parent
    for path in sorted(package.rglob("*.py")):
        digest.update(str(path.relative_to(package)).encode() + path.read_bytes())
    return digest.hexdigest()[:32]


@cache
def import_closure(*modules: str) -> tuple[str, ...]:
    """`modules` and the modules of Partway that they import, directly or not, sorted; imports in functions count."""
    known, waiting = set[str](), list(modules)
    while waiting:
        name = waiting.pop()
        if name not in known:
            known.add(name)
            waiting += _imports(source_file(name))
    return tuple(sorted(known))


def source_file(module: str) -> Path:
    """The file of a module of Partway, found without importing it."""
    package = Path(__file__).parent
    base = package.joinpath(*module.split(".")[1:])
    return base / "__init__.py" if base.is_dir() else base.with_suffix(".py")


def _imports(path: Path) -> Iterator[str]:
    """Modules of Partway that a file imports when it runs, with the packages above them."""
    tree = ast.parse(path.read_bytes())
    for node in [inner for outer in tree.body if not _for_types_only(outer) for inner in ast.walk(outer)]:
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            words = name.split(".")
            if words[0] == PACKAGE:
                prefixes = (".".join(words[: i + 1]) for i in range(len(words)))
                yield from (prefix for prefix in prefixes if source_file(prefix).is_file())


def _for_types_only(node: ast.stmt) -> bool:
    """Whether a statement is an `if TYPE_CHECKING:`."""
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
