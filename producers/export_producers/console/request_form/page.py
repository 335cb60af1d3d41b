"""The page New export: a form for each kind of export, its check, and what programs would send."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from aiohttp import web

from export_producers.console.frame import page
from export_producers.console.request_form.catalog_names import NAMES
from export_producers.console.request_form.drafts import (
    Draft,
    Problems,
    grouped,
    inputs,
    kinds_of,
    new_key,
    summary,
)
from export_producers.console.request_form.forms import about_kind
from export_producers.console.request_form.picks import Found, pick_of, search
from export_producers.console.request_form.snippets import Origin, snippets
from export_producers.console.views import SYMBOLS, command, kind_key
from export_producers.console.visitors.access import read_form, see_other
from export_producers.console.visitors.preferences import CHOICES
from export_producers.gateway.callers.principals import PRINCIPAL, allowed_connections, require
from export_producers.gateway.context import CONTEXT, query
from export_producers.gateway.documents.schemas import Problem
from export_producers.gateway.handlers.activity import ABOUT
from export_producers.gateway.handlers.exports import accept, usable
from export_producers.gateway.problems import ProblemError, error_response
from export_worker.contract.dry_run import DryRun, without_nulls
from export_worker.contract.parsing import parse_request
from export_worker.contract.request import ExportRequest
from export_worker.errors import (
    ExportNotFoundError,
    ExportWorkerError,
    FieldProblem,
    IdempotencyConflictError,
    InvalidRequestError,
)

PATH = "/console/new"
EXPORTS_PATH = "/console/exports"
PLATFORM_TIMEOUT_S = 20.0
"""Limit for one question to a platform. The visitor looks at an empty page until it is answered."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A request that may be enqueued.

    Args:
        result: What would happen.
        platform_problem: Why the platform was not asked.
        programs: The same request for programs, by the ends of the keys of their names.
    """

    result: DryRun
    platform_problem: str | None
    programs: Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a form that was sent.

    Args:
        problems: What is wrong with the request.
        found: The result of a search in the catalog, by the name of the field.
        focused: The field that gets the focus.
        sent_before: The export that this form has requested before, with other values.
    """

    problems: Problems = ()
    found: Mapping[str, Found] = field(default_factory=dict)
    checked: Checked | None = None
    focused: str = ""
    sent_before: str | None = None


async def show(request: web.Request) -> web.Response:
    """Shows the connections, the kinds of one of them, or the form of a kind. One round trip, with `again` two."""
    given = query(request, "connection", "kind", "again", "as", *CHOICES)
    known = await _known(request)
    if export_id := given.get("again"):
        return await _again(request, export_id, known)
    if given.get("as") == "json":
        return _form(request, Draft(new_key()), known)
    connection = given.get("connection") or (next(iter(known)) if len(known) == 1 else "")
    if connection not in known:
        return _choice(request, known)
    kinds = kinds_of(known[connection])
    kind = given.get("kind") or (kinds[0] if len(kinds) == 1 else "")
    if kind not in kinds:
        return _choice(request, known, connection, kinds)
    return _form(request, Draft(new_key(), connection, kind), known)


async def _known(request: web.Request) -> dict[str, str]:
    """Returns the connections that the visitor may use, with their platforms."""
    known, allowed = await request.app[CONTEXT].queue.known_connections(), allowed_connections(request)
    return {name: known[name] for name in sorted(known) if allowed is None or name in allowed}


async def _again(request: web.Request, export_id: str, known: Mapping[str, str]) -> web.Response:
    """Shows the form with the request of an export. An export of before this version has no request."""
    try:
        status = await request.app[CONTEXT].queue.status(export_id)
    except ExportNotFoundError:
        status = None
    if status is None or status.request is None or not request[PRINCIPAL].may_use(status.connection):
        return page(request, "not_found", status=404, title="gone.title", searched=export_id)
    return _form(request, Draft.of_request(status.request, known), known)


def _choice(
    request: web.Request, known: Mapping[str, str], connection: str | None = None, kinds: Sequence[str] = ()
) -> web.Response:
    """Shows the connections, or the kinds of one."""
    return page(
        request,
        "new_choice",
        title="new.title",
        known=known,
        connection=connection,
        kinds=[(kind, kind_key(kind), about_kind(kind)) for kind in kinds],
        command=command("enqueue", "FILE"),
    )


def _form(request: web.Request, draft: Draft, known: Mapping[str, str], outcome: Outcome | None = None) -> web.Response:
    outcome = outcome or Outcome()
    fields = inputs(draft, outcome.problems, outcome.found, has_catalog=request.app[CONTEXT].catalog is not None)
    return page(
        request,
        "new",
        status=422 if outcome.problems or outcome.sent_before else 200,
        title="new.title",
        draft=draft,
        kind_key=None if draft.kind is None else kind_key(draft.kind),
        about_kind=None if draft.kind is None else about_kind(draft.kind),
        platform=known.get(draft.connection),
        groups=grouped(fields),
        json_lines=draft.text.split("\n"),
        summary=list(summary(draft, outcome.problems)),
        outcome=outcome,
        symbols=SYMBOLS,
        command=command("enqueue", "FILE"),
    )


async def send(request: web.Request) -> web.Response:
    """Does what the pressed button says: checks the request, requests the export, or changes the form.

    A form has one idempotency key. Sent twice, by a double click or a reload, it requests one export.
    """
    form = await read_form(request)
    request[ABOUT].is_change = False
    draft, known, wish = Draft.of_form(form), await _known(request), _wish(form)
    if draft.kind is not None:
        require(request, draft.connection)
        if draft.kind not in kinds_of(known.get(draft.connection, "")):
            return see_other(PATH)
    match wish:
        case ("find", name):
            return _form(request, draft, known, await _find(request, draft, name, form.get(f"find.{name}", "")))
        case ("submit", _):
            return await _submit(request, draft, known)
        case ("json" | "fields" | "pick", value):
            edited, focused = _edited(draft, wish[0], value, known)
            return _form(request, edited, known, Outcome(focused=focused))
        case _:
            return await _check(request, draft, known)


def _edited(draft: Draft, action: str, value: str, known: Mapping[str, str]) -> tuple[Draft, str]:
    """Returns the form after a change, and the name of the field that was changed."""
    if action == "json":
        return draft.as_json(), ""
    if action == "fields":
        return draft.as_fields(known), ""
    name, _, picked = value.partition("=")
    return draft.with_pick(name, picked), name


def _wish(form: Mapping[str, str]) -> tuple[str, str]:
    """Returns what the pressed button does, and with what. The key Enter searches if a text is there to search for."""
    wish = form.get("do", "")
    if "pick" in form:
        return "pick", form["pick"]
    if wish == "enter":
        texts = [name.removeprefix("find.") for name, text in form.items() if name.startswith("find.") and text]
        return ("find", texts[0]) if texts else ("check", "")
    name, _, value = wish.partition(":")
    return name, value


async def _find(request: web.Request, draft: Draft, name: str, searched: str) -> Outcome:
    """Searches the catalog for a field. A catalog that cannot be read is part of the answer."""
    call, pick = request.app[CONTEXT].catalog, pick_of(draft.kind, name)
    if call is None or pick is None:
        return Outcome()
    resource = pick.listed(draft.texts)
    if resource is None:
        problem = FieldProblem(str(pick.chooser), "is needed first")
        return Outcome(found={name: Found(searched, problem=str(problem))}, focused=name)
    try:
        async with asyncio.timeout(PLATFORM_TIMEOUT_S):
            with request.app[CONTEXT].ask_platform(request[PRINCIPAL]):
                project = pick.listed_project(draft.texts)
                items = await call(draft.connection, resource, project)
    except Exception as error:  # noqa: BLE001 - the page shows it in words; the log gets the details
        return Outcome(found={name: Found(searched, problem=_detail(error))}, focused=name)
    request.app[NAMES].add((draft.connection, resource, project), items)
    # A catalog can have many thousand items.
    return Outcome(found={name: await asyncio.to_thread(search, items, pick.column, searched)}, focused=name)


def _detail(error: Exception) -> str:
    """Returns what a visitor may know of an error, as the API answers it."""
    if isinstance(error, TimeoutError):
        return f"the platform did not answer within {PLATFORM_TIMEOUT_S:g} s"
    return Problem.model_validate_json(str(error_response(error).text)).detail


async def _requested(request: web.Request, draft: Draft) -> ExportRequest:
    """Returns the request of a form, with the key of the form if the visitor states none."""
    export_request = await usable(request, parse_request(draft.body()))
    has_key = export_request.idempotency_key is not None
    return export_request if has_key else export_request.model_copy(update={"idempotency_key": draft.key})


async def _submit(request: web.Request, draft: Draft, known: Mapping[str, str]) -> web.Response:
    """Requests the export, and shows it."""
    key = draft.key
    try:
        export_request = await _requested(request, draft)
        key = export_request.idempotency_key or key
        # From here on, the export may exist, whatever happens to the answer.
        request[ABOUT].is_change = True
        accepted = await accept(request, export_request)
    except InvalidRequestError as error:
        request[ABOUT].is_change = False
        return _form(request, draft, known, Outcome(error.problems))
    except IdempotencyConflictError as error:
        request[ABOUT].is_change = False
        if key == draft.key:
            return _form(request, replace(draft, key=new_key()), known, Outcome(sent_before=error.export_id))
        return _form(request, draft, known, Outcome([_of_key(error)]))
    is_known = accepted.deduplicated and key != draft.key
    return see_other(f"{EXPORTS_PATH}/{accepted.export_id}?done={'known' if is_known else 'requested'}")


def _of_key(error: IdempotencyConflictError) -> FieldProblem:
    return FieldProblem("idempotency_key", str(error).partition(": ")[2])


async def _check(request: web.Request, draft: Draft, known: Mapping[str, str]) -> web.Response:
    """Shows what would happen: the answer of the API to a dry run."""
    key = draft.key
    try:
        export_request = await _requested(request, draft)
        key = export_request.idempotency_key or key
        checked = await _dry_run(request, export_request, draft)
    except InvalidRequestError as error:
        return _form(request, draft, known, Outcome(error.problems))
    except IdempotencyConflictError as error:
        if key == draft.key:  # sent before; from now on it is another form
            return await _check(request, replace(draft, key=new_key()), known)
        return _form(request, draft, known, Outcome([_of_key(error)]))
    return _form(request, draft, known, Outcome(checked=checked))


async def _dry_run(request: web.Request, export_request: ExportRequest, draft: Draft) -> Checked:
    """Checks a request, then asks its platform. A platform that does not answer is part of the answer."""
    context, owner = request.app[CONTEXT], request[PRINCIPAL].owner
    result, platform_problem = await context.queue.dry_run(export_request, owner=owner), None
    try:
        async with asyncio.timeout(PLATFORM_TIMEOUT_S):
            with context.ask_platform(request[PRINCIPAL]):
                platform = None if context.preview is None else await context.preview(export_request)
    except InvalidRequestError:
        raise
    except (ExportWorkerError, ProblemError, TimeoutError) as error:
        platform_problem = _detail(error)
    else:
        result = await context.queue.dry_run(export_request, platform, owner=owner)
    document = without_nulls(export_request)
    if document["idempotency_key"] == draft.key:
        del document["idempotency_key"]
    origin = Origin(
        _address(request),
        not context.callers.are_anonymous,
        await context.queue.namespace_of(export_request.connection),
    )
    programs = {name: text.splitlines() for name, text in snippets(document, origin).items()}
    return Checked(result, platform_problem, programs)


def _address(request: web.Request) -> str:
    """Returns the address of the gateway as the visitor sees it. A proxy in front of it states another one."""
    headers, scheme = request.headers, request.scheme
    proxied = headers.get("X-Forwarded-Proto", scheme)
    return f"{proxied if proxied in {'http', 'https'} else scheme}://{headers.get('X-Forwarded-Host', request.host)}"


ROUTES = [web.get("/new", show), web.post("/new", send)]
