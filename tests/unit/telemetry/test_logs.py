"""No secret comes out of a log, whoever writes it, and every line tells which export it is about."""

import asyncio
import contextlib
import io
import json
import logging
import re
import unicodedata
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog
from yarl import URL

from export_worker.contract.status import Phase
from export_worker.credentials import MASK, Redactor
from export_worker.telemetry.logs import QUIET, configure_logging

CANARY = "canary-S3cret/+"
ENCODED = "canary-S3cret%2F%2B"

Written = Callable[[], list[dict[str, Any]]]


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    before, level, quiet = root.handlers[:], root.level, {name: logging.getLogger(name).level for name in QUIET}
    yield
    root.handlers[:] = before
    root.setLevel(level)
    for name, quiet_level in quiet.items():
        logging.getLogger(name).setLevel(quiet_level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.fixture
def redactor() -> Redactor:
    redactor = Redactor()
    redactor.add(CANARY)
    return redactor


def lines(text: str) -> list[dict[str, Any]]:
    """The events of a log, each of which must be a line of JSON without a secret."""
    assert "canary-s3cret" not in text.lower()
    return [json.loads(line) for line in text.splitlines()]


def configured(redactor: Redactor, level: str = "DEBUG", *, as_json: bool | None = True) -> io.StringIO:
    """Sets logs up on a standard error of their own."""
    stream = io.StringIO()
    with contextlib.redirect_stderr(stream):
        configure_logging(redactor, level, as_json=as_json)
    return stream


@pytest.fixture
def stderr(redactor: Redactor) -> io.StringIO:
    return configured(redactor)


@pytest.fixture
def written(stderr: io.StringIO, capsys: pytest.CaptureFixture[str]) -> Written:
    """Gives the events that have been written since the last look."""

    def read() -> list[dict[str, Any]]:
        assert "".join(capsys.readouterr()) == "", "logging itself complained"
        text = stderr.getvalue()
        stderr.seek(0)
        stderr.truncate()
        return lines(text)

    return read


@dataclass
class Frame:
    """Something with a secret in its repr."""

    token: str


def test_a_line_is_json_with_what_a_reader_needs(written: Written) -> None:
    structlog.get_logger("export_worker.worker.step_runner").info(
        "step.taken", connection="gio", note="标签 ok", polls=3
    )
    (event,) = written()
    assert event.pop("timestamp").endswith("Z")
    assert event == {
        "event": "step.taken",
        "level": "info",
        "logger": "export_worker.worker.step_runner",
        "connection": "gio",
        "note": "标签 ok",
        "polls": 3,
    }


def test_chinese_stays_chinese(written: Written, stderr: io.StringIO) -> None:
    structlog.get_logger("t").info("export.stored", name="下载用户列表.csv")
    assert "下载用户列表.csv" in stderr.getvalue()
    assert len(written()) == 1


def test_a_secret_in_any_field_is_masked(written: Written) -> None:
    structlog.get_logger("t").warning(
        f"call.failed {CANARY}",
        text=f"Bearer {CANARY}",
        encoded=ENCODED,
        url=URL("https://op.example.cn/graphql").with_query({"token": CANARY}),
        nested={"headers": [("Authorization", CANARY)], CANARY: {"x": CANARY}},
        raw=CANARY.encode(),
        frame=Frame(CANARY),
        error=ValueError(CANARY),
        path=Path("/") / CANARY,
        phase=Phase.RUNNING,
        body=json.dumps({"token": CANARY}),
    )
    (event,) = written()
    assert event["event"] == f"call.failed {MASK}"
    assert event["text"] == f"Bearer {MASK}"
    assert event["encoded"] == MASK
    assert event["url"] == f"https://op.example.cn/graphql?token={MASK}"
    assert event["nested"] == {"headers": [["Authorization", MASK]], MASK: {"x": MASK}}
    assert event["frame"] == f"Frame(token='{MASK}')"
    assert event["phase"] == "running"


def test_a_secret_in_a_field_s_name_or_an_argument_is_masked(written: Written) -> None:
    structlog.get_logger("t").info("call.made", CANARY, **{CANARY: 1})
    (event,) = written()
    assert event[MASK] == 1


def refuse() -> None:
    raise KeyError(CANARY)


def fail() -> None:
    try:
        refuse()
    except KeyError as error:
        raise RuntimeError(f"GET https://op.example.cn/?token={ENCODED} failed") from error


def caught(call: Callable[[], None]) -> Exception:
    with pytest.raises(Exception, match="canary") as raised:
        call()
    return raised.value


def test_a_secret_in_an_exception_its_cause_and_its_frames_is_masked(written: Written) -> None:
    log, error = structlog.get_logger("t"), caught(fail)
    log.error("step.crashed", exc_info=error)
    log.error("step.crashed", exc_info=(type(error), error, error.__traceback__))
    try:
        fail()
    except RuntimeError:
        log.exception("step.crashed")
    events = written()
    assert len(events) == 3
    for event in events:
        assert f"KeyError: '{MASK}'" in event["exception"]
        assert f"RuntimeError: GET https://op.example.cn/?token={MASK} failed" in event["exception"]
        assert "Traceback (most recent call last)" in event["exception"]


def test_a_secret_in_a_group_of_exceptions_and_in_a_note_is_masked(written: Written) -> None:
    error = ValueError(CANARY)
    error.add_note(f"while calling {CANARY}")
    group = ExceptionGroup(f"several {CANARY}", [error])
    structlog.get_logger("t").error("worker.failed", exc_info=group)
    (event,) = written()
    assert event["exception"].count(MASK) == 3


def test_a_stack_is_masked(written: Written) -> None:
    structlog.get_logger("t").info("here", stack_info=True)
    logging.getLogger("library").info("here", stack_info=True)
    assert [event["event"] for event in written()] == ["here", "here"]


def test_logs_of_libraries_go_the_same_way(written: Written) -> None:
    library = logging.getLogger("some.library")
    library.info("GET %s with %r", URL(f"https://h/?token={ENCODED}"), {"Authorization": CANARY})
    library.warning("named %(token)s", {"token": CANARY})
    library.error(ValueError(CANARY))
    library.debug("extra", extra={"token": CANARY})
    try:
        fail()
    except RuntimeError:
        library.exception("crashed")
    events = written()
    assert [(event["logger"], event["level"]) for event in events] == [
        ("some.library", level) for level in ("info", "warning", "error", "debug", "error")
    ]
    assert events[0]["event"] == f"GET https://h/?token={MASK} with {{'Authorization': '{MASK}'}}"
    assert events[1]["event"] == f"named {MASK}"
    assert events[2]["event"] == MASK
    assert f"KeyError: '{MASK}'" in events[4]["exception"]


def test_a_line_that_cannot_be_written_gives_nothing_away(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", root.handlers[:1])  # without those of pytest, which raise
    logging.getLogger("some.library").warning("two %s and %s", CANARY)  # noqa: PLE1206 - on purpose
    structlog.get_logger("t").info("call.made", value=Unspeakable())
    structlog.get_logger("t").info("goes on")
    *failed, last = written()
    assert [event["event"] for event in failed] == ["log.failed"] * 2
    assert all("test_logs.py:" in event["source"] for event in failed)
    assert last["event"] == "goes on"


class Unspeakable:
    """Cannot be shown."""

    def __str__(self) -> str:
        raise ValueError(CANARY)


async def test_what_asyncio_says_of_a_lost_exception_is_masked(written: Written) -> None:
    asyncio.get_running_loop().call_exception_handler({"message": f"lost {CANARY}", "exception": ValueError(CANARY)})
    (event,) = written()
    assert event["logger"] == "asyncio"
    assert event["event"].startswith(f"lost {MASK}")
    assert f"ValueError: {MASK}" in event["exception"]


def test_warnings_are_masked_once_they_are_logged(written: Written) -> None:
    logging.captureWarnings(capture=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            logging.captureWarnings(capture=False)
            logging.captureWarnings(capture=True)
            warnings.warn(f"unclosed {CANARY}", ResourceWarning, stacklevel=1)
    finally:
        logging.captureWarnings(capture=False)
    (event,) = written()
    assert f"unclosed {MASK}" in event["event"]


def test_a_secret_that_is_learnt_later_is_masked_from_then_on(written: Written, redactor: Redactor) -> None:
    log = structlog.get_logger("t")
    log.info("before", token="later-secret")
    redactor.add("later-secret")
    log.info("after", token="later-secret")
    assert [event["token"] for event in written()] == ["later-secret", MASK]


def test_the_export_is_bound_once_for_every_line(written: Written) -> None:
    log = structlog.get_logger("t")
    with structlog.contextvars.bound_contextvars(export_id="e1", step=3):
        log.info("step.taken")
        logging.getLogger("some.library").info("called")
    log.info("afterwards")
    ours, library, afterwards = written()
    for event in (ours, library):
        assert (event["export_id"], event["step"]) == ("e1", 3)
    assert "export_id" not in afterwards


async def test_exports_that_run_together_are_told_apart(written: Written) -> None:
    async def step(export_id: str) -> None:
        with structlog.contextvars.bound_contextvars(export_id=export_id):
            await asyncio.sleep(0)
            structlog.get_logger("t").info("step.taken", said=export_id)

    await asyncio.gather(*(step(f"e{number}") for number in range(5)))
    events = written()
    assert len(events) == 5
    assert all(event["export_id"] == event["said"] for event in events)


def test_libraries_that_tell_too_much_are_quiet(written: Written) -> None:
    for name in QUIET:
        logging.getLogger(name).info("told")
        logging.getLogger(f"{name}.inner").debug("told")
    assert written() == []
    logging.getLogger("botocore").warning("told")
    assert [event["logger"] for event in written()] == ["botocore"]


def test_the_level_is_the_least_severe_that_is_written(redactor: Redactor) -> None:
    stream = configured(redactor, "WARNING")
    for log in (structlog.get_logger("t"), logging.getLogger("t")):
        log.info("no")
        log.warning("yes")
    assert [event["event"] for event in lines(stream.getvalue())] == ["yes", "yes"]


def test_json_is_the_default_where_nobody_watches(redactor: Redactor) -> None:
    stream = configured(redactor, "INFO", as_json=None)
    structlog.get_logger("t").info("step.taken", token=CANARY)
    (event,) = lines(stream.getvalue())
    assert event["token"] == MASK


def test_lines_for_people_are_masked_too(redactor: Redactor) -> None:
    stream = configured(redactor, as_json=False)
    try:
        fail()
    except RuntimeError:
        structlog.get_logger("t").exception("step.crashed", url=URL(f"https://h/?token={ENCODED}"))
        logging.getLogger("some.library").exception("crashed with %s", CANARY)
    shown = stream.getvalue()
    assert "canary-s3cret" not in shown.lower()
    assert "step.crashed" in shown
    assert f"crashed with {MASK}" in shown
    assert f"KeyError: '{MASK}'" in shown


HOSTILE = "a\x1b[2J\x9b31m\u202eb\r\nerror fake.line \ud800"
"""What clears a screen, turns writing around, makes a line of its own, and cannot be written at all."""


@pytest.mark.parametrize("as_json", [False, True])
def test_a_terminal_only_shows_what_others_wrote(redactor: Redactor, *, as_json: bool) -> None:
    stream = configured(redactor, as_json=as_json)
    log = structlog.get_logger("t")
    log.info("plain")
    log.warning("message.unusable", reason=HOSTILE, listed=[HOSTILE], **{HOSTILE: 1})
    logging.getLogger("some.library").warning(HOSTILE)
    log.error("step.crashed", exc_info=ValueError(HOSTILE))
    shown = re.sub(r"\x1b\[\d*m", "", stream.getvalue())
    assert [character for character in shown if character != "\n" and unicodedata.category(character)[0] == "C"] == []
    assert not any(line.startswith("error fake") for line in shown.splitlines())
    shown.encode()


def test_configuring_twice_writes_once(redactor: Redactor) -> None:
    configured(redactor)
    stream = configured(redactor)
    logging.getLogger("t").warning("once")
    assert len(lines(stream.getvalue())) == 1
