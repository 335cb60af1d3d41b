"""Logs: every line is masked, whichever library writes it, and names the export that it is about."""

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
def _restored_logging() -> Iterator[None]:
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
    """Parses a log. Each line must be JSON, and none may contain the secret."""
    assert "canary-s3cret" not in text.lower()
    return [json.loads(line) for line in text.splitlines()]


class Stderr(io.StringIO):
    """Standard error in memory. It is read when the thread that writes log lines has written all of them."""

    def getvalue(self) -> str:
        for handler in logging.getLogger().handlers:
            handler.flush()
        return super().getvalue()


def configured(redactor: Redactor, level: str = "DEBUG", *, as_json: bool | None = True) -> io.StringIO:
    """Configures logging with a separate stream as standard error."""
    stream = Stderr()
    with contextlib.redirect_stderr(stream):
        configure_logging(redactor, level, as_json=as_json)
    return stream


@pytest.fixture
def stderr(redactor: Redactor) -> io.StringIO:
    return configured(redactor)


@pytest.fixture
def written(stderr: io.StringIO, capsys: pytest.CaptureFixture[str]) -> Written:
    """Returns a function that reads the log lines written since its last call."""

    def read() -> list[dict[str, Any]]:
        assert "".join(capsys.readouterr()) == "", "logging printed an error"
        text = stderr.getvalue()
        stderr.seek(0)
        stderr.truncate()
        return lines(text)

    return read


@dataclass
class Frame:
    """A value with a secret in its repr."""

    token: str


def test_line_is_json_with_time_level_and_logger(written: Written) -> None:
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


def test_chinese_text_is_written_unescaped(written: Written, stderr: io.StringIO) -> None:
    structlog.get_logger("t").info("export.stored", name="下载用户列表.csv")
    assert "下载用户列表.csv" in stderr.getvalue()
    assert len(written()) == 1


def test_secret_in_any_field_is_masked(written: Written) -> None:
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


def test_secret_in_field_name_or_argument_is_masked(written: Written) -> None:
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


def test_secret_in_exception_cause_or_frame_is_masked(written: Written) -> None:
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


def test_secret_in_exception_group_or_note_is_masked(written: Written) -> None:
    error = ValueError(CANARY)
    error.add_note(f"while calling {CANARY}")
    group = ExceptionGroup(f"several {CANARY}", [error])
    structlog.get_logger("t").error("worker.failed", exc_info=group)
    (event,) = written()
    assert event["exception"].count(MASK) == 3


def test_line_with_stack_shows_no_secret(written: Written) -> None:
    structlog.get_logger("t").info("called", stack_info=True)
    logging.getLogger("library").info("called", stack_info=True)
    assert [event["event"] for event in written()] == ["called", "called"]


def test_lines_of_libraries_are_masked_and_json(written: Written) -> None:
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


def test_line_that_cannot_be_written_is_reported_without_arguments(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", root.handlers[:1])  # without those of pytest, which raise
    logging.getLogger("some.library").warning("two %s and %s", CANARY)  # noqa: PLE1206 - on purpose
    structlog.get_logger("t").info("call.made", value=WithoutText())
    structlog.get_logger("t").info("next")
    *failed, last = written()
    assert [event["event"] for event in failed] == ["log.failed"] * 2
    assert all("test_logs.py:" in event["source"] for event in failed)
    assert last["event"] == "next"


class WithoutText:
    """A value that cannot be converted to text."""

    def __str__(self) -> str:
        raise ValueError(CANARY)


async def test_unhandled_exception_logged_by_asyncio_is_masked(written: Written) -> None:
    asyncio.get_running_loop().call_exception_handler({"message": f"lost {CANARY}", "exception": ValueError(CANARY)})
    (event,) = written()
    assert event["logger"] == "asyncio"
    assert event["event"].startswith(f"lost {MASK}")
    assert f"ValueError: {MASK}" in event["exception"]


def test_captured_warning_is_masked(written: Written) -> None:
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


def test_secret_added_later_is_masked_from_then_on(written: Written, redactor: Redactor) -> None:
    log = structlog.get_logger("t")
    log.info("before", token="later-secret")
    redactor.add("later-secret")
    log.info("after", token="later-secret")
    assert [event["token"] for event in written()] == ["later-secret", MASK]


def test_bound_export_id_is_in_every_line(written: Written) -> None:
    log = structlog.get_logger("t")
    with structlog.contextvars.bound_contextvars(export_id="e1", step=3):
        log.info("step.taken")
        logging.getLogger("some.library").info("called")
    log.info("afterwards")
    ours, library, afterwards = written()
    for event in (ours, library):
        assert (event["export_id"], event["step"]) == ("e1", 3)
    assert "export_id" not in afterwards


async def test_concurrent_exports_log_their_own_ids(written: Written) -> None:
    async def step(export_id: str) -> None:
        with structlog.contextvars.bound_contextvars(export_id=export_id):
            await asyncio.sleep(0)
            structlog.get_logger("t").info("step.taken", logged_id=export_id)

    await asyncio.gather(*(step(f"e{number}") for number in range(5)))
    events = written()
    assert len(events) == 5
    assert all(event["export_id"] == event["logged_id"] for event in events)


def test_verbose_libraries_are_logged_from_warning_on(written: Written) -> None:
    for name in QUIET:
        logging.getLogger(name).info("noise")
        logging.getLogger(f"{name}.inner").debug("noise")
    assert written() == []
    logging.getLogger("botocore").warning("noise")
    assert [event["logger"] for event in written()] == ["botocore"]


def test_lines_below_the_level_are_dropped(redactor: Redactor) -> None:
    stream = configured(redactor, "WARNING")
    for log in (structlog.get_logger("t"), logging.getLogger("t")):
        log.info("no")
        log.warning("yes")
    assert [event["event"] for event in lines(stream.getvalue())] == ["yes", "yes"]


def test_json_is_the_default_without_terminal(redactor: Redactor) -> None:
    stream = configured(redactor, "INFO", as_json=None)
    structlog.get_logger("t").info("step.taken", token=CANARY)
    (event,) = lines(stream.getvalue())
    assert event["token"] == MASK


def test_lines_for_terminals_are_masked(redactor: Redactor) -> None:
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
"""Text that clears a screen, reverses the direction, starts a new line, and cannot be encoded."""


@pytest.mark.parametrize("as_json", [False, True])
def test_control_characters_are_escaped(redactor: Redactor, *, as_json: bool) -> None:
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


def test_second_configuration_replaces_the_first(redactor: Redactor) -> None:
    configured(redactor)
    stream = configured(redactor)
    logging.getLogger("t").warning("once")
    assert len(lines(stream.getvalue())) == 1
