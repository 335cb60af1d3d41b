"""The handlers of the routes that list and drop the dead letters of triggers, and try them again."""

from aiohttp import web

from export_producers.choices import DEAD_LETTERS_MAX
from export_producers.client import ExportQueue
from export_producers.gateway.callers.principals import PRINCIPAL, forbidden, require
from export_producers.gateway.context import CONTEXT, json_response, limit_of, location, next_link, query
from export_producers.gateway.documents.act_schemas import DeadLetters
from export_producers.gateway.handlers.activity import ABOUT
from export_producers.gateway.problems import ProblemError, invalid_parameter
from export_producers.queues.queues import ExportQueues
from export_producers.triggers.configured import ConfiguredTrigger
from export_producers.triggers.dead_letter_list import drop_dead_letter, is_entry, read_dead_letters
from export_producers.triggers.dead_letter_retry import try_again
from export_producers.triggers.message import UnusableMessageError
from export_worker.contract.names import unknown_name
from export_worker.contract.status import Accepted
from export_worker.errors import ConfigError, ErrorCode

DEAD = "/v1/triggers/{trigger}/dead"
UNUSABLE = "unusable_message"
"""The code of the problem that a message still holds no valid request."""


async def dead_letters(request: web.Request) -> web.Response:
    """Returns one page of the dead letters of a trigger."""
    parameters = query(request, "limit", "cursor")
    limit = limit_of(parameters.get("limit", "20"), DEAD_LETTERS_MAX)
    answer = await dead_letter_page(request, parameters.get("cursor"), limit)
    return json_response(answer, headers=next_link(request, answer.next_cursor))


async def again(request: web.Request) -> web.Response:
    """Reads a dead letter again with the present template, and enqueues its export."""
    query(request)
    accepted = await enqueue_again(request)
    return json_response(accepted, status=202, headers=location(accepted.export_id))


async def drop(request: web.Request) -> web.Response:
    """Removes a dead letter."""
    query(request)
    await remove(request)
    return web.Response(status=204)


async def dead_letter_page(request: web.Request, cursor: str | None, limit: int) -> DeadLetters:
    """Returns one page of the dead letters of the trigger in the path. Needs two round trips.

    Raises:
        ProblemError: The cursor is wrong, there is no such trigger, or the caller may not use it.
    """
    if cursor is not None and not is_entry(cursor):
        raise invalid_parameter("cursor", "must be the next_cursor of another page")
    queues, name, trigger = await announced_trigger(request)
    found = await queues.ask(name, lambda queue: read_dead_letters(queue.storage, trigger, limit, cursor))
    return DeadLetters(dead_letters=found, next_cursor=found[-1].entry if len(found) == limit else None)


async def enqueue_again(request: web.Request) -> Accepted:
    """Enqueues the export of the dead letter in the path, and removes the dead letter.

    Raises:
        ProblemError: There is no such dead letter, this gateway does not know its trigger, the caller may not use it,
            or the message still holds no valid request.
    """
    queues, name, trigger = await announced_trigger(request)
    entry = _entry(request)
    configured = (await configured_triggers(request)).get(trigger)
    if configured is None:
        detail = f"the configuration of this gateway has no section [triggers.{trigger}], which has the template"
        raise ProblemError(501, "trigger_not_configured", detail)
    try:
        accepted = await queues.ask(name, lambda queue: try_again(queue, trigger, entry, configured))
    except UnusableMessageError as error:
        raise ProblemError(422, UNUSABLE, f"the message cannot be used: {error}") from None
    if accepted is None:
        raise _missing()
    request[ABOUT].export_id = accepted.export_id
    request[ABOUT].detail |= {"trigger": trigger, "entry": entry}
    return accepted


async def remove(request: web.Request) -> None:
    """Removes the dead letter in the path.

    Raises:
        ProblemError: There is no such dead letter, or the caller may not use it.
    """
    queues, name, trigger = await announced_trigger(request)
    entry = _entry(request)
    if not await queues.ask(name, lambda queue: drop_dead_letter(queue.storage, trigger, entry)):
        raise _missing()
    request[ABOUT].detail |= {"trigger": trigger, "entry": entry}


async def announced_trigger(request: web.Request) -> tuple[ExportQueues, str, str]:
    """Returns the queues, the name of the one that has the trigger of the path, and the name of the trigger.

    Raises:
        ProblemError: No such trigger has announced itself, several queues have one, or the caller may not use it.
    """
    queues, trigger = request.app[CONTEXT].queue, request.match_info["trigger"]
    answers = await queues.every(_triggers)
    names = [name for name, known in answers.by_queue.items() if trigger in known]
    if not names:
        answers.require_all()
        known = sorted({each for found in answers.found for each in found})
        raise ProblemError(404, ErrorCode.NOT_FOUND, unknown_name("trigger", trigger, known))
    if len(names) > 1:
        detail = f"the queues {' and '.join(names)} have a trigger {trigger}; give each trigger its own name"
        raise ProblemError(409, "ambiguous_trigger", detail)
    await _check_connections(request, trigger)
    return queues, names[0], trigger


async def _triggers(queue: ExportQueue) -> set[str]:
    async with queue.storage.calls() as redis:
        return {name.decode() for name in await redis.hgetall(queue.storage.keys.triggers)}


async def configured_triggers(request: web.Request) -> dict[str, ConfiguredTrigger]:
    """Returns the triggers of the configuration; none if this gateway has no configuration."""
    triggers = request.app[CONTEXT].installation.triggers
    return {} if triggers is None else dict(await triggers())


async def visible_triggers(request: web.Request) -> set[str]:
    """Returns the configured triggers whose messages concern only a connection of the caller."""
    principal = request[PRINCIPAL]
    try:
        configured = await configured_triggers(request)
    except ConfigError:  # which an operator is editing now
        return set()
    return {name for name, each in configured.items() if each.connection and principal.may_use(each.connection)}


async def _check_connections(request: web.Request, trigger: str) -> None:
    """Checks that the messages of a trigger concern only connections of the caller.

    Raises:
        ProblemError: They concern another connection, or may concern every connection.
    """
    principal = request[PRINCIPAL]
    if principal.connections is None:
        return
    configured = (await configured_triggers(request)).get(trigger)
    connection = None if configured is None else configured.connection
    if connection is None:
        names = ", ".join(sorted(principal.connections))
        detail = f"the messages of trigger {trigger} may request exports of every connection"
        raise forbidden(f"{detail}; {principal.name} may only use {names}")
    require(request, connection)
    request[ABOUT].connection = connection


def _entry(request: web.Request) -> str:
    entry = request.match_info["entry"]
    if not is_entry(entry):
        raise _missing()
    return entry


def _missing() -> ProblemError:
    return ProblemError(404, ErrorCode.NOT_FOUND, "the trigger has no such dead letter")


ROUTES = [
    web.get(DEAD, dead_letters),
    web.post(f"{DEAD}/{{entry}}/again", again),
    web.delete(f"{DEAD}/{{entry}}", drop),
]
