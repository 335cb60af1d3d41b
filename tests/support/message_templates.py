"""Collects the English messages that the code can produce, as templates. Each part that is filled in is `{}`.

The messages are found in the syntax trees: every text of several words in a module that makes messages for people. So a
new message is found without a list that could forget it.
"""

import ast
import re
from collections.abc import Iterator

from support.paths import ROOT
from support.source_modules import Module, called, modules, within

ROOMS = (
    *(f"export_worker.{room}" for room in ("lifecycle", "worker", "transfer", "redis", "s3", "egress", "texts")),
    *(f"export_worker.{room}" for room in ("contract", "doctor", "platforms", "sinks", "wiring", "config")),
    *(f"export_worker.{room}" for room in ("recipes", "references", "secrets", "errors", "credentials")),
    *(f"export_producers.{room}" for room in ("records", "moments", "pauses", "activity", "filters", "dry_run")),
    "export_producers.readable",
    *(f"export_producers.commands.{name}" for name in ("dry_run", "exports", "listing", "rendering")),
    *(f"{package}.{room}" for package in ("export_worker", "export_producers") for room in ("schedules", "batches")),
    *(f"export_producers.{room}" for room in ("bulk", "events", "triggers", "console", "gateway", "queues")),
)
"""The rooms whose messages get to a page: as a note, an error, a finding, or a problem of a field or of a call."""
OTHER_ROOMS = (
    "export_worker.contract.extras",  # of commands
    "export_worker.contract.kinds",  # for authors of packages
    "export_worker.contract.queue_jobs",
    "export_worker.platforms.arguments",  # of the command `call`
    "export_worker.platforms.conformance",
    "export_worker.platforms.recipe_check",  # of the command `recipe check`, which prints English
    *(f"export_worker.platforms.{name}.operations" for name in ("growingio", "growingio_rest")),
    *(f"export_worker.platforms.{name}.operations" for name in ("sensorsdata", "thinkingdata")),
    "export_worker.platforms.sensorsdata.horizon_operations",
    "export_worker.platforms.growingio.queries",
    "export_worker.platforms.http.pages",  # patterns
    "export_producers.gateway.documents",
    "export_producers.gateway.metrics",
    "export_producers.gateway.options",  # of the start
    "export_producers.gateway.server",
    "export_producers.triggers.metrics",
)
"""Rooms within them whose texts get to no page."""
DEFECTS = {"RuntimeError", "TypeError", "AttributeError", "AssertionError", "NotImplementedError", "LookupError"}
"""Errors that users do not see."""
LOGS = {"_log", "log"}

_NO_SENTENCE = re.compile(r"\n|^(?:GET|POST|DELETE) [/{]\S*$|-src ")
"""Texts for programs: requests, headers, patterns."""
_PART = re.compile(r"\{+[^{}]*\}+")
_SEVERAL = re.compile(r"(?:\{\})+")
_LUA_NOTE = re.compile(r"'([a-z][^'\n]* [^'\n]*)'(?:\s*\.\. '([^'\n]*)')?")


def messages() -> dict[str, list[str]]:
    """Returns every template with the places that make it."""
    found: dict[str, list[str]] = {}
    for module in modules().values():
        if within(module.name, *ROOMS) and not within(module.name, *OTHER_ROOMS):
            for line, template in _of_module(module):
                found.setdefault(normal(template), []).append(f"{module.name}:{line}")
    for path in sorted((ROOT / "worker/export_worker/redis/lua").glob("*.lua")):
        for template in _of_script(path.read_text(encoding="utf-8")):
            found.setdefault(normal(template), []).append(path.name)
    return found


def normal(template: str) -> str:
    """Returns a template with `{}` for each part, and for parts without a text between them."""
    return _SEVERAL.sub("{}", _PART.sub("{}", template)).strip().removeprefix("; ").removeprefix(", ")


def _of_script(source: str) -> Iterator[str]:
    """Yields the notes of a Lua script. `string.format` fills them in."""
    code = re.sub(r"--.*", "", source)
    for first, second in _LUA_NOTE.findall(code):
        yield re.sub(r"%(?:\.\d)?[a-z]", "{}", first + second)


def _of_module(module: Module) -> Iterator[tuple[int, str]]:
    for line, template in _walk(module.tree):
        if " " in normal(template) and re.search("[a-z]{2}", normal(template)) and not _NO_SENTENCE.search(template):
            yield line, template


def _walk(node: ast.AST) -> Iterator[tuple[int, str]]:
    """Yields the texts below a node that are no docstrings, patterns, annotations or logs."""
    template = _template(node)
    if template is not None:
        yield getattr(node, "lineno", 0), template
        for part in _parts(node):
            yield from _walk(part)
        return
    for child in _children(node):
        yield from _walk(child)


def _template(node: ast.AST) -> str | None:
    """Returns the template of a text or of texts that are joined; None for any other expression."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=values):
            return "".join(str(each.value) if isinstance(each, ast.Constant) else "{}" for each in values)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            first, second = _template(left), _template(right)
            if first is None and second is None:
                return None
            return (first or "{}") + (second or "{}")
        case _:
            return None


def _parts(node: ast.AST) -> list[ast.AST]:
    match node:
        case ast.JoinedStr(values=values):
            return [each.value for each in values if isinstance(each, ast.FormattedValue)]
        case ast.BinOp(left=left, right=right):
            return [each for side in (left, right) for each in ([side] if _template(side) is None else _parts(side))]
        case _:
            return []


def _children(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.Expr(value=ast.Constant()) | ast.Compare():
            return
        case ast.Call() if called(node) in DEFECTS | {"compile", "cast", "getLogger"} or _is_log(node):
            return
        case ast.keyword(arg="about"):
            return
        case ast.AnnAssign(value=value):
            yield from [] if value is None else [value]
        case ast.FunctionDef(body=body) | ast.AsyncFunctionDef(body=body):
            yield from body
        case _:
            yield from ast.iter_child_nodes(node)


def _is_log(call: ast.Call) -> bool:
    owner = call.func.value if isinstance(call.func, ast.Attribute) else None
    return isinstance(owner, ast.Name) and owner.id in LOGS
