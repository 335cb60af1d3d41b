"""The identity of a message in Redis: no request can name it, and a message makes one export across an upgrade."""

import json
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import pytest

from export_producers.identities import MessageIdentity
from export_worker.contract.model import epoch_ms
from export_worker.errors import IdempotencyConflictError
from support.redis_site import REFUSED, QueueSite, request_of

MESSAGE = MessageIdentity("t", ("message", "m-1"), "m-1")
EVENT = MessageIdentity("t", ("event", "/tags", "e-1"), "/tags#e-1")


async def enqueue(site: QueueSite, message: MessageIdentity, **more: Any) -> tuple[str, bool]:
    """Enqueues the export of a message. Returns its id, and whether it existed before."""
    accepted = await site.queue.enqueue(request_of(**more), message=message)
    return accepted.export_id, accepted.deduplicated


async def enqueue_as_version_0_1(site: QueueSite, key: str, **more: Any) -> str:
    """Enqueues an export as triggers of version 0.1 did: the identity of the message was an idempotency key."""
    export_id = await site.enqueue(idempotency_key=key, **more)
    await site.redis.hdel(site.keys.dedupe(key), "named_by")
    return export_id


async def test_message_that_is_delivered_twice_makes_one_export(queue_site: QueueSite) -> None:
    export_id, deduplicated = await enqueue(queue_site, MESSAGE)
    assert not deduplicated
    assert await enqueue(queue_site, MESSAGE) == (export_id, True)
    with pytest.raises(IdempotencyConflictError) as refused:
        await enqueue(queue_site, MESSAGE, metadata={"a": "b"})
    expected = f"the message was accepted before, as export {export_id}, with another request (metadata.a differs)"
    assert str(refused.value) == expected


@pytest.mark.parametrize("message", [MESSAGE, EVENT])
async def test_idempotency_key_of_a_request_never_names_a_message(
    queue_site: QueueSite, message: MessageIdentity
) -> None:
    """A caller may use any text as its key, also one from which a key in Redis is made."""
    text = message.text
    names = [message.earlier_key, text, f"message:{text}", f"message:{sha256(text.encode()).hexdigest()}"]
    by_request = [await queue_site.enqueue(idempotency_key=name) for name in names]
    by_message, _ = await enqueue(queue_site, message)
    again = [await queue_site.queue.enqueue(request_of(idempotency_key=name)) for name in names]
    assert [accepted.export_id for accepted in again] == by_request
    assert len({by_message, *by_request}) == 5
    # With another body, the request does not turn the message into a dead letter.
    other = MessageIdentity("t", ("message", "m-2"), "m-2")
    await queue_site.enqueue(idempotency_key=other.earlier_key, metadata={"a": "b"})
    assert not (await enqueue(queue_site, other))[1]


@pytest.mark.parametrize(
    "messages",
    [
        [("a/b", ("message", "c"), "c"), ("a", ("message", "b/c"), "b/c")],
        [("t", ("event", "s#x", "y"), "s#x#y"), ("t", ("event", "s", "x#y"), "s#x#y")],
    ],
)
async def test_messages_whose_parts_join_to_the_same_text_make_two_exports(
    queue_site: QueueSite, messages: Sequence[tuple[str, tuple[str, ...], str]]
) -> None:
    made = [await enqueue(queue_site, MessageIdentity(*parts)) for parts in messages]
    assert [deduplicated for _, deduplicated in made] == [False, False]


@pytest.mark.parametrize("message", [MESSAGE, EVENT, MessageIdentity("t", ("message", "i" * 300), "i" * 300)])
async def test_message_that_version_0_1_accepted_makes_no_second_export(
    queue_site: QueueSite, message: MessageIdentity
) -> None:
    export_id = await enqueue_as_version_0_1(queue_site, message.earlier_key)
    assert await enqueue(queue_site, message) == (export_id, True)
    with pytest.raises(IdempotencyConflictError):
        await enqueue(queue_site, message, metadata={"a": "b"})


async def test_message_published_after_the_export_of_version_0_1_makes_its_own_export(queue_site: QueueSite) -> None:
    """Version 0.1 knew a Kafka message by topic, partition and offset only, so a new topic repeats its ids."""
    accepted_ms = epoch_ms(queue_site.now)
    position = "topic/0/0"
    export_id = await enqueue_as_version_0_1(queue_site, f"t/{position}")
    before = MessageIdentity("t", ("message", position), position, accepted_ms - 60_000)
    assert await enqueue(queue_site, before) == (export_id, True)
    later = MessageIdentity("t", ("message", position), position, accepted_ms + 600_000)
    second, deduplicated = await enqueue(queue_site, later)
    assert not deduplicated
    assert await enqueue(queue_site, later) == (second, True)
    # With another body, it is a new message as well, and no conflict.
    last = MessageIdentity("t", ("message", position), position, accepted_ms + 700_000)
    assert not (await enqueue(queue_site, last, metadata={"a": "b"}))[1]


async def test_identity_of_a_message_expires_with_its_export(queue_site: QueueSite) -> None:
    export_id, _ = await enqueue(queue_site, MESSAGE)
    key, past = queue_site.keys.message(MESSAGE.text), queue_site.keys.past(export_id)
    # A worker of version 0.1 ends the export without this key.
    assert await queue_site.redis.pttl(key) > 31 * 86_400_000
    queue_site.catch_up()
    await queue_site.submit(await queue_site.one())
    await queue_site.fail(await queue_site.one(), REFUSED)
    ended = await queue_site.redis.pttl(past)
    assert abs(await queue_site.redis.pttl(key) - ended) < 60_000
    await queue_site.queue.retry(export_id)
    assert await queue_site.redis.pttl(key) > ended
    assert await enqueue(queue_site, MESSAGE) == (export_id, True)


async def test_identity_whose_export_has_expired_may_be_used_again(queue_site: QueueSite) -> None:
    export_id, _ = await enqueue(queue_site, MESSAGE)
    await queue_site.redis.delete(queue_site.keys.export(export_id))
    second, deduplicated = await enqueue(queue_site, MESSAGE)
    assert (second != export_id, deduplicated) == (True, False)


async def test_identity_with_a_lone_surrogate_makes_one_export(queue_site: QueueSite) -> None:
    """JSON can contain half of a character, which is not UTF-8."""
    message = MessageIdentity("t", ("event", json.loads('"\\ud800"'), "1"), "\ud800#1")
    export_id, _ = await enqueue(queue_site, message)
    assert await enqueue(queue_site, message) == (export_id, True)
