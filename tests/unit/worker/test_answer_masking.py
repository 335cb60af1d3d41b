"""Fields of a platform's answer are masked in every form before they are saved."""

from base64 import b64encode
from collections.abc import Callable
from html import escape
from urllib.parse import quote

import pytest

from export_worker.credentials import Redactor
from export_worker.errors import OperationIdRefusedError, PlatformMalformedError, ResultMissingError
from export_worker.lifecycle.observations import OperationFailed, Pending, Polled, Ready, RemoteFile, Submitted
from export_worker.worker.answer_masking import TEXT_MAX_CHARS, FileAddresses, masked_poll, masked_submit

SECRET = 'canary<S3cret>&"1"'
FORMS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "percent": lambda secret: quote(secret, safe=""),
    "JSON": lambda secret: secret.replace("<", "\\u003c").replace('"', '\\"'),
    "HTML": escape,
    "every character": lambda secret: "".join(f"&#{ord(character)};" for character in secret),
    "JavaScript": lambda secret: "".join(f"%u{ord(character):04x}" for character in secret),
    "base64": lambda secret: b64encode(f"user:{secret}".encode()).decode(),
}
PLAIN = RemoteFile("/a/plain.csv", "plain.csv")


@pytest.fixture
def redactor() -> Redactor:
    """Knows the secret."""
    redactor = Redactor()
    redactor.add(SECRET)
    return redactor


@pytest.mark.parametrize("form", FORMS)
def test_operation_id_with_a_secret_is_refused(redactor: Redactor, form: str) -> None:
    operation_id = f"op-{FORMS[form](SECRET)}"
    for mask in (
        lambda: masked_submit(Submitted(operation_id), redactor),
        lambda: masked_poll(Pending("X", operation_id=operation_id), redactor),
    ):
        with pytest.raises(OperationIdRefusedError) as caught:
            mask()
        assert operation_id not in str(caught.value)
        assert not caught.value.retryable


@pytest.mark.parametrize("form", FORMS)
def test_secret_is_masked_in_every_field(redactor: Redactor, form: str) -> None:
    text = f"before {FORMS[form](SECRET)} after"
    answers: list[Submitted | Polled] = [
        masked_submit(Submitted("op-1", text, done=True), redactor),
        masked_poll(Pending(text, 5.0, "op-2", submitted=True), redactor),
        masked_poll(Ready(text, (RemoteFile(text, text), PLAIN)), redactor),
        masked_poll(OperationFailed(text, text), redactor),
    ]
    for answer in answers:
        assert FORMS[form](SECRET) not in repr(answer).replace("\\\\", "\\").replace("\\'", "'")
        assert "***" in repr(answer)
        assert "before" in repr(answer)


def test_field_that_is_too_long_is_cut_or_refused(redactor: Redactor) -> None:
    """A driver of another package may return a text of any length."""
    long = "x" * (TEXT_MAX_CHARS + 1)
    with pytest.raises(OperationIdRefusedError, match="has 4097 characters"):
        masked_submit(Submitted(long), redactor)
    for file in (RemoteFile(long, "a"), RemoteFile("/a", long)):
        with pytest.raises(PlatformMalformedError, match="more than 4096 characters"):
            masked_poll(Ready("F", (file,)), redactor)
    for answer in (
        masked_submit(Submitted("op-1", long), redactor),
        masked_poll(Pending(long), redactor),
        masked_poll(OperationFailed(long, long), redactor),
    ):
        assert "x" * (TEXT_MAX_CHARS - 1) + "…" in repr(answer)
        assert long not in repr(answer)


def test_field_that_utf_8_cannot_encode_is_replaced_or_refused(redactor: Redactor) -> None:
    """JSON can carry half of a surrogate pair. A record with it cannot be saved."""
    half = "a\ud800b"
    with pytest.raises(OperationIdRefusedError, match="surrogate"):
        masked_submit(Submitted(half), redactor)
    with pytest.raises(OperationIdRefusedError, match="surrogate"):
        masked_poll(Pending("X", operation_id=half), redactor)
    for file in (RemoteFile(half, "a"), RemoteFile("/a", half)):
        with pytest.raises(PlatformMalformedError, match="surrogate"):
            masked_poll(Ready("F", (file,)), redactor)
    assert masked_submit(Submitted("op-1", half), redactor).stage == "a?b"
    assert masked_poll(OperationFailed(half, half), redactor) == OperationFailed("a?b", "a?b")


def test_answer_without_a_secret_is_unchanged(redactor: Redactor) -> None:
    submitted = Submitted("op-1", None, done=True)
    assert masked_submit(submitted, redactor) == submitted
    for polled in (Pending(None, 5.0, "op-2", submitted=True), Ready("F", (PLAIN,)), OperationFailed(None, "no")):
        assert masked_poll(polled, redactor) == polled


async def test_masked_address_is_found_by_one_poll_for_all_files(redactor: Redactor) -> None:
    files = [RemoteFile(f"/{SECRET}/{name}", name) for name in ("a", "b")]
    polls = []

    async def poll() -> Polled:
        polls.append(1)
        return Ready("F", (*files, PLAIN))

    masked = masked_poll(await poll(), redactor)
    assert isinstance(masked, Ready)
    polls.clear()
    addresses = FileAddresses(poll, redactor)
    assert await addresses.find(PLAIN) == PLAIN
    assert polls == []
    assert [await addresses.find(file) for file in masked.files] == [*files, PLAIN]
    assert polls == [1]


@pytest.mark.parametrize(
    "polled",
    [
        Pending("RUNNING"),
        Ready("F", (PLAIN,)),
        Ready("F", (RemoteFile(f"/{SECRET}", "a"), RemoteFile(f"/{quote(SECRET, safe='')}", "a"))),
    ],
)
async def test_masked_address_that_is_not_found_is_a_missing_file(redactor: Redactor, polled: Polled) -> None:
    async def poll() -> Polled:
        return polled

    with pytest.raises(ResultMissingError):
        await FileAddresses(poll, redactor).find(RemoteFile("/***", "a"))
