"""Limits of the sizes of files, functions, parameter lists and folders."""

import ast

from support.command_tree import targets
from support.paths import ROOT
from support.source_modules import modules

FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 50
PARAMETERS_MAX = 6

FLAT_MODULES_MAX = {"": 5, "platforms": 6}
"""Maximum number of modules directly in a folder: in the root, and in the room with the most modules."""


def test_a_folder_holds_few_flat_modules() -> None:
    for room, most in FLAT_MODULES_MAX.items():
        flat = [
            path.name for path in (ROOT / "worker" / "export_worker" / room).glob("*.py") if path.stem != "__init__"
        ]
        assert len(flat) <= most, flat


def test_docstring_of_every_package_begins_with_one_sentence() -> None:
    undocumented = []
    for module in modules().values():
        if module.path.name == "__init__.py":
            first = (ast.get_docstring(module.tree) or "").partition("\n")[0]
            if not first.endswith("."):
                undocumented.append(module.name)
    assert undocumented == []


def test_no_file_is_too_long() -> None:
    lines = {module.name: len(module.path.read_text(encoding="utf-8").splitlines()) for module in modules().values()}
    assert {name: count for name, count in lines.items() if count > FILE_LINES_MAX} == {}


def function_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from `def` to the end, without the docstring."""
    first = function.body[0]
    documented = ast.get_docstring(function, clean=False) is not None
    return _lines(function) - (_lines(first) if documented else 0)


def _lines(node: ast.stmt) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def test_no_function_is_too_long() -> None:
    lines = {
        f"{module.name}:{node.name}": function_lines(node)
        for module in modules().values()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {name: count for name, count in lines.items() if count > FUNCTION_LINES_MAX} == {}


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    named = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return len([argument for argument in named if argument.arg not in {"self", "cls"}])


def is_command(module: str, function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Returns whether a command runs a function. The parameters of such a function are the options of the command."""
    return f"{module}:{function.name}" in targets()


def test_no_function_takes_too_many_parameters() -> None:
    found = {
        f"{module.name}:{node.name}": parameters(node)
        for module in modules().values()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not is_command(module.name, node)
    }
    assert {name: count for name, count in found.items() if count > PARAMETERS_MAX} == {}
