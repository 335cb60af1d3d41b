"""The handlers of the routes that list and drop the dead letters of triggers."""

from aiohttp import web

from export_producers.gateway.context import CONTEXT, json_response, limit_of, next_link, query
from export_producers.gateway.documents.act_schemas import DeadLetters
from export_producers.gateway.handlers.activity import ABOUT
from export_producers.gateway.problems import ProblemError, invalid_parameter
from export_producers.storage import Storage
from export_producers.triggers.dead_letter_list import LIST_MAX, drop_dead_letter, is_entry, read_dead_letters
from export_worker.contract.names import unknown_name
from export_worker.errors import ErrorCode

DEAD = "/v1/triggers/{trigger}/dead"


async def dead_letters(request: web.Request) -> web.Response:
    """Returns one page of the dead letters of a trigger."""
    parameters = query(request, "limit", "cursor")
    cursor, limit = parameters.get("cursor"), limit_of(parameters.get("limit", "20"), LIST_MAX)
    if cursor is not None and not is_entry(cursor):
        raise invalid_parameter("cursor", "must be the next_cursor of another page")
    storage, trigger = await _trigger(request)
    found = await read_dead_letters(storage, trigger, limit, cursor)
    following = found[-1].entry if len(found) == limit else None
    answer = DeadLetters(dead_letters=found, next_cursor=following)
    return json_response(answer, headers=next_link(request, following))


async def drop(request: web.Request) -> web.Response:
    """Removes a dead letter."""
    query(request)
    storage, trigger = await _trigger(request)
    entry = request.match_info["entry"]
    if not is_entry(entry) or not await drop_dead_letter(storage, trigger, entry):
        raise ProblemError(404, ErrorCode.NOT_FOUND, "the trigger has no such dead letter")
    request[ABOUT].detail |= {"trigger": trigger, "entry": entry}
    return web.Response(status=204)


async def _trigger(request: web.Request) -> tuple[Storage, str]:
    """Returns the storage and the trigger of the path.

    Raises:
        ProblemError: No such trigger has announced itself.
    """
    storage, trigger = request.app[CONTEXT].queue.storage, request.match_info["trigger"]
    async with storage.calls() as redis:
        known = sorted(name.decode() for name in await redis.hgetall(storage.keys.triggers))
    if trigger not in known:
        raise ProblemError(404, ErrorCode.NOT_FOUND, unknown_name("trigger", trigger, known))
    return storage, trigger


ROUTES = [web.get(DEAD, dead_letters), web.delete(f"{DEAD}/{{entry}}", drop)]
