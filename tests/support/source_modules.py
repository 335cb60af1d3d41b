"""Reads every module of the project, with its syntax tree and its imports."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from support.paths import ROOT

PACKAGES = {"export_worker": ROOT / "worker", "export_producers": ROOT / "producers"}


@dataclass(frozen=True)
class Module:
    """One source file.

    Args:
        name: Dotted name. The name of a package has no `__init__` at its end.
        imports: Dotted names as the source has them, `from a import b` as `a.b`, including imports within functions.
    """

    name: str
    path: Path
    tree: ast.Module
    imports: tuple[str, ...]


def imported_names(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ("." * node.level + f"{node.module or ''}.{alias.name}" for alias in node.names)


def parsed(name: str, path: Path, source: str) -> Module:
    tree = ast.parse(source, str(path))
    return Module(name, path, tree, tuple(imported_names(tree)))


@cache
def modules() -> dict[str, Module]:
    found = {}
    for package, home in PACKAGES.items():
        for path in sorted((home / package).rglob("*.py")):
            parts = path.relative_to(home).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = parsed(name, path, path.read_text(encoding="utf-8"))
    return found


def module_of(imported: str, known: dict[str, Module]) -> str | None:
    """Returns the module of this project that is imported or defines the imported name; else None."""
    while imported and imported not in known:
        imported = imported.rpartition(".")[0]
    return imported or None


def our_imports(module: Module, known: dict[str, Module]) -> set[str]:
    found = (module_of(imported, known) for imported in module.imports)
    return {name for name in found if name is not None}


def within(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def calls_of(module: Module) -> Iterator[ast.Call]:
    yield from (node for node in ast.walk(module.tree) if isinstance(node, ast.Call))


def called(call: ast.Call) -> str:
    """Returns the last part of the name of the called function."""
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
