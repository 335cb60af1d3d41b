"""Sends requests to the script that enqueues them."""

from collections.abc import Sequence
from typing import Any

from arq.connections import ArqRedis

from export_producers.records import Offer
from export_worker.contract.redis_keys import Keys
from export_worker.errors import InvalidRequestError
from export_worker.redis.client import commands
from export_worker.redis.scripts import Call, Script, decode_document


async def send_offers(keys: Keys, enqueue: Script, offers: Sequence[Offer]) -> list[dict[str, Any]]:
    """Returns the script's answer to each offer. A Redis that does not have the script yet gets it first.

    Needs one round trip, and two more if Redis does not have the script. Raises the errors of redis-py.
    """
    calls: list[Call] = [(offer.keys(keys), offer.arguments(keys), ()) for offer in offers]
    if len(calls) == 1:
        ((names, arguments, _),) = calls
        return [await enqueue.document(names, arguments)]
    # Even a repeated request is enqueued once: its export id stays the same.
    return [decode_document(answer) for answer in await enqueue.answers(calls)]


async def with_checked_sinks(
    redis: ArqRedis, keys: Keys, offers: Sequence[Offer | InvalidRequestError]
) -> Sequence[Offer | InvalidRequestError]:
    """Replaces offers that name an unknown sink by errors. Until workers have announced sinks, all are allowed.

    Needs one round trip. Raises the errors of redis-py.
    """
    known = sorted(name.decode() for name in await commands(redis).hgetall(keys.sinks))
    return [offer.check_sinks(known) if isinstance(offer, Offer) else offer for offer in offers]
