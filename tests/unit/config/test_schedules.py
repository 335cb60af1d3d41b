"""The sections `schedules.NAME`: what is wrong is refused when the file is loaded, with its line."""

from pathlib import Path

import pytest

from export_worker.config import load_config
from export_worker.errors import ConfigError

GIO = '[connections.gio]\nplatform = "growingio"\nbase_url = "https://op.example.cn"\n'
EXPORT = '{ kind = "growingio.segment_users", project_id = "WlGk4Daj", segment_id = "qgQMXnD3" }'
REQUEST = f'{{ connection = "gio", export = {EXPORT}, metadata = {{ day = "{{date-1}}" }} }}'


def write(folder: Path, **changed: str) -> str:
    """Writes a file with one schedule, whose settings begin in line 5, and returns its name."""
    settings = {"cron": '"0 6 * * *"', "timezone": '"Asia/Shanghai"', "request": REQUEST} | changed
    lines = [f"{name} = {value}" for name, value in settings.items()]
    file = folder / "export-worker.toml"
    file.write_text(GIO + "\n".join(["[schedules.nightly]", *lines, ""]), encoding="utf-8")
    return str(file)


def test_schedule_is_loaded_with_its_defaults(tmp_path: Path) -> None:
    schedule = load_config(write(tmp_path)).schedules["nightly"]
    assert (schedule.timezone, schedule.jitter_s, schedule.overlap, schedule.catch_up_s) == (
        "Asia/Shanghai",
        0,
        "skip",
        3600,
    )


@pytest.mark.parametrize(
    ("setting", "value", "line", "message"),
    [
        ("cron", '"0 25 * * *"', 5, "schedules.nightly.cron: the field hour is wrong: 25"),
        ("cron", '"0 6 31 6 *"', 5, "schedules.nightly.cron: no date matches"),
        ("timezone", '"Asia/Peking"', 6, "schedules.nightly.timezone: must be a time zone"),
        ("timezone", '"../../etc/passwd"', 6, "schedules.nightly.timezone: must be a time zone"),
        ("overlap", '"stop"', 8, "schedules.nightly.overlap: must be 'skip' or 'queue'"),
        ("jitter_s", "-1", 8, "schedules.nightly.jitter_s: must be at least 0"),
        ("catch_up_s", "1e9", 8, "schedules.nightly.catch_up_s: must be at most 604800"),
        (
            "request",
            REQUEST.replace("{date-1}", "{day}"),
            7,
            "schedules.nightly.request.metadata.day: braces hold {date} or {date-N} with N up to 3660 days, not {day}",
        ),
        ("request", REQUEST.replace("{date-1}", "{date"), 7, "schedules.nightly.request.metadata.day: braces hold"),
        ("request", REQUEST.replace("qgQMXnD3", "x"), 7, "schedules.nightly.request.export.segment_id: must be 8"),
        (
            "request",
            REQUEST.replace('"gio"', '"gia"'),
            7,
            "request.connection: unknown connection 'gia'",
        ),
        ("request", REQUEST[:-1] + ', idempotency_key = "x" }', 7, "request.idempotency_key: must be left out"),
        ("request", REQUEST[:-1] + ', notify = ["x"] }', 7, "request.notify: unknown sink 'x'"),
    ],
)
def test_wrong_setting_is_refused_with_its_line(
    tmp_path: Path, setting: str, value: str, line: int, message: str
) -> None:
    file = write(tmp_path, **{setting: value})
    with pytest.raises(ConfigError) as raised:
        load_config(file)
    (problem,) = raised.value.problems
    assert message in problem
    assert f"(in {file}, line {line})" in problem
