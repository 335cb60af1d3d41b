"""The language of what commands print: by option, by the environment, aligned in terminals, and never in JSON."""

import io
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from click.testing import CliRunner
from rich.cells import cell_len
from rich.console import Console

from export_producers.commands import declarations, listing, overview, rendering
from export_producers.commands.following import Following
from export_producers.commands.options import language_of_environment
from export_producers.languages import texts
from export_producers.reads.failures_document import FailureGroup, Failures
from export_producers.reads.overview_document import Overview
from export_worker.cli import cli
from export_worker.commands import declarations as declarations_of_workers
from export_worker.contract.status import Phase, Status

NOW = datetime(2026, 11, 22, 3, tzinfo=UTC)
COUNTED = ("counted_since", "counted_until")
VARIABLES = ("LC_ALL", "LC_MESSAGES", "LANG")
SPOKEN = ("enqueue", "status", "list", "failures", "overview", "watch", "explain", "doctor")
"""The commands that print texts which the console has, too."""


def status(phase: str, **fields: Any) -> Status:
    request = {"connection": "gio", "export": {"kind": "growingio.segment_users", "segment_id": "qgQMXnD3"}}
    at = (NOW - timedelta(minutes=3)).isoformat()
    document = {"export_id": "e" * 32, "phase": phase, "connection": "gio", "kind": "growingio.segment_users"}
    return Status.model_validate(document | {"created_at": at, "updated_at": at, "request": request} | fields)


def printed(*parts: Any, width: int = 200) -> list[str]:
    stream = io.StringIO()
    console = Console(file=stream, width=width, color_system=None)
    for part in parts:
        console.print(part)
    return stream.getvalue().splitlines()


@pytest.mark.parametrize(
    ("variables", "language"),
    [
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "zh"}, "zh"),
        ({"LANG": "zh_TW.Big5"}, "zh"),
        ({"LANG": "zh-Hans"}, "zh"),
        ({"LANG": "C"}, "en"),
        ({"LANG": "C.UTF-8"}, "en"),
        ({"LANG": "ja_JP.UTF-8"}, "en"),
        ({"LANG": "zhuang"}, "en"),
        ({"LANG": ""}, "en"),
        ({}, "en"),
        ({"LC_ALL": "en_US.UTF-8", "LANG": "zh_CN.UTF-8"}, "en"),
        ({"LC_ALL": "", "LC_MESSAGES": "zh_CN", "LANG": "en_US"}, "zh"),
    ],
)
def test_language_is_that_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], language: str
) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert language_of_environment() == language


@pytest.mark.parametrize("name", SPOKEN)
def test_unknown_language_is_refused_with_the_choices(name: str) -> None:
    argument = [] if name in {"list", "failures", "overview", "doctor"} else ["x"]
    done = CliRunner().invoke(cli, [name, *argument, "--lang", "fr"])
    assert done.exit_code == 2
    assert "Invalid value for '--lang': must be one of en, zh, not fr" in done.output


def test_each_command_that_shares_texts_has_the_option() -> None:
    commands = (*declarations.COMMANDS, *declarations_of_workers.COMMANDS)
    found = {each.name for each in commands if any(param.name == "language" for param in each.params)}
    assert found == set(SPOKEN)


def test_list_is_aligned_in_chinese() -> None:
    statuses = [status("queued"), status("running", platform_stage="FINISH", counters={"polls": 3})]
    head, *rows = printed(rendering.Listing(statuses, NOW, "zh"))
    assert [head.split(), "3 分钟前" in rows[0]] == [
        ["导出", "内容", "连接", "阶段", "接受时间\uff08UTC\uff09", "提出至今", "当前"],
        True,
    ]
    assert "平台阶段 FINISH\uff0c已轮询 3 次" in rows[1]
    starts = {
        cell_len(line.partition(word)[0]) for line, word in ((head, "阶段"), (rows[0], "排队中"), (rows[1], "运行中"))
    }
    assert len(starts) == 1


def test_plain_lines_are_aligned_in_both_languages() -> None:
    for language in ("en", "zh"):
        lines = [rendering.line(status(phase), language) for phase in Phase]
        now = {phase: rendering.activity(status(phase), language) for phase in (Phase.QUEUED, Phase.RUNNING)}
        places = {cell_len(line.partition(each)[0]) for line in lines for each in now.values() if each in line}
        assert len(places) == 1


def test_facts_and_progress_are_in_chinese() -> None:
    progress = {"bytes_done": 2**20, "bytes_total": 2**22, "files_done": 0, "files_total": 1, "bytes_per_s": 2**18}
    found = status("transferring", progress=progress)
    shown = "\n".join(printed(rendering.details(found, NOW, "zh"), Following(found, NOW, "zh")))
    for text in ("请求内容", "分群 qgQMXnD3\uff0c连接 gio", "剩余 12 秒", "已用 3 分钟", "传输中", "接受"):
        assert text in shown, text


def test_overview_begins_with_the_sentence_of_the_page() -> None:
    empty: dict[str, Any] = {key: {} for key in ("connections", "queue", "sinks", "triggers", "redis")}
    about = {"now": NOW, "version": "1", "namespace": "n", "complete": True, "workers": []}
    found = Overview.model_validate(empty | about | {"phases": {"queued": 2}})
    lines = [*overview.head(found, "zh"), *overview.parts(found, "zh")]
    assert lines[0] == texts("zh")["overview.no_worker"]
    assert "导出\uff1a2 排队中" in lines
    assert overview.parts(found).__next__() == texts("en")["summary.no_worker"]


def test_failures_have_what_to_do_in_the_language() -> None:
    group = FailureGroup.model_validate(
        {
            "connection": "gio",
            "kind": "growingio.tag_users",
            "step": "submit",
            "code": "platform_refused",
            "message": "no tag",
            "count": 3,
            "counts": [3],
            "hopeless": 3,
            "retryable": False,
            "first_at": NOW,
            "last_at": NOW,
            "export_ids": ["e1"],
        }
    )
    found = Failures.model_validate(
        {"groups": [group], "groups_left_out": 0, "total": 3, "searched_until": None} | dict.fromkeys(COUNTED, NOW)
    )
    first, second, third = listing.failure_lines(found, "zh")
    assert (first.strip(), third.strip()) == (
        "3 个 platform_refused\uff0c连接 gio\uff0c步骤 提交\uff1agrowingio.tag_users",
        texts("zh")["fix.platform_refused"],
    )
    assert "仅靠重试无法成功" in second
