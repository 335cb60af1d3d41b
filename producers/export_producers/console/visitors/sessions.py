"""Logins at the console. Redis has a digest of each cookie, so that a reader of Redis cannot log in."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from hmac import compare_digest, new
from secrets import token_urlsafe

from pydantic import BaseModel, ValidationError

from export_producers.client import ExportQueue
from export_producers.gateway.callers.auth import digest_of
from export_producers.gateway.callers.principals import Principal
from export_producers.queues.queues import ExportQueues
from export_producers.storage import Storage
from export_worker.contract.model import Timestamp

SESSION_MAX = timedelta(hours=12)
"""A login ends after this time, whatever its user does: about one shift."""
IDLE_MAX = timedelta(hours=1)
"""A login ends after this time without a request."""
ID_BYTES = 32


class Session(BaseModel):
    """A login, as Redis has it.

    The name and the role are those of the time of the login, for people who look at Redis. The gateway takes both from
    its configuration.
    """

    name: str
    role: str
    language: str
    proof: str
    """Shows to the owner of the cookie with which key the login was made. It reveals nothing about the key."""
    ends_at: Timestamp


@dataclass(frozen=True, slots=True)
class Sessions:
    """The logins of a gateway. Each is in one of its queues, whose outage ends it for as long."""

    queues: ExportQueues

    async def open(self, key: str, owner: Principal, language: str) -> str:
        """Stores a login with a key and returns the value of its cookie. One round trip."""
        session_id = token_urlsafe(ID_BYTES)
        session = Session(
            name=owner.name,
            role=owner.role,
            language=language,
            proof=proof_of(session_id, digest_of(key)),
            ends_at=datetime.now(UTC) + SESSION_MAX,
        )

        async def write(queue: ExportQueue) -> None:
            async with queue.storage.calls():
                key = _key(queue.storage, session_id)
                await queue.storage.client.set(key, session.model_dump_json(), ex=IDLE_MAX)

        await self.queues.of_any(write)
        return session_id

    async def read(self, session_id: str) -> Session | None:
        """Returns a login that has not ended, and counts as its use. One round trip."""

        async def use(queue: ExportQueue) -> bytes | None:
            key = _key(queue.storage, session_id)
            async with queue.storage.calls(), queue.storage.client.pipeline(transaction=False) as pipe:
                pipe.get(key)
                pipe.pexpire(key, IDLE_MAX)
                stored, _ = await pipe.execute()
            return stored  # type: ignore[no-any-return]  # redis-py has no types for answers of pipelines

        stored = next((found for found in (await self.queues.every(use)).found if found is not None), None)
        try:
            session = None if stored is None else Session.model_validate_json(stored)
        except ValidationError:  # of another version
            return None
        return session if session is not None and session.ends_at > datetime.now(UTC) else None

    async def close(self, session_id: str) -> None:
        """Ends a login. One round trip."""

        async def end(queue: ExportQueue) -> None:
            async with queue.storage.calls() as redis:
                await redis.delete(_key(queue.storage, session_id))

        await self.queues.every(end)


def _key(storage: Storage, session_id: str) -> str:
    return storage.keys.session(sha256(session_id.encode()).hexdigest())


def proof_of(session_id: str, key_digest: bytes) -> str:
    """Returns what shows that a login was made with a key. Without the cookie, no key can be compared with it."""
    return new(session_id.encode(), key_digest, sha256).hexdigest()


def owner_of(session_id: str, session: Session, known: Iterable[tuple[bytes, Principal]]) -> Principal | None:
    """Returns the caller with whose key a login was made; None if that key is not configured any more.

    Args:
        known: The digest of each configured key with its caller.
    """
    found = [who for digest, who in known if compare_digest(proof_of(session_id, digest), session.proof)]
    return found[0] if found else None


def form_token(session_id: str) -> str:
    """Returns the token that every form of a login carries. A page of another site cannot know it."""
    return new(session_id.encode(), b"form", sha256).hexdigest()
