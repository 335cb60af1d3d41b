"""Messages in the language of the reader: each one that the code can make has a translation, and is recognised."""

# ruff: noqa: RUF001, E501 - messages in Chinese have wide marks

import tomllib
from collections.abc import Iterator
from string import Formatter

import pytest

from export_producers.languages.messages import MESSAGE_MAX_CHARS, translated
from support.message_templates import messages, normal
from support.paths import ROOT

FOLDER = ROOT / "producers/export_producers/languages/translations/zh"
FOR_PROGRAMS = {
    '<{}>; rel="next"',
    "{}-problem {}-about",
    "<!-- findings -->",
    "attachment; filename*=UTF-8''{}",
    "not bold",
    "Accept-Language, Cookie",
    "application/cloudevents+json; charset=utf-8",
    'Bearer realm="export-worker"',
    "Bearer {}",
    "public, max-age=31536000, immutable",
    "return redis.call('HGET', KEYS[1], 'a')",
    "Basic {}",
    "AWS4-HMAC-SHA256 Credential={}, SignedHeaders={}, Signature={}",
    *("Host: {}", "Accept-Encoding: identity", "amz-sdk-invocation-id: {}", "Content-Length: {}"),
    "HMAC-SHA256 Credential={}/{}, SignedHeaders={}, Signature={}",
    "ACS3-HMAC-SHA256 Credential={},SignedHeaders={},Signature={}",
    "SELECT {} FROM {} c LEFT JOIN {} u ON {} WHERE c.cluster_name = {}",
    "c.{} = CAST(u.{} AS varchar)",
}
"""Texts of requests and pages that no person reads."""
OF_OTHERS = {
    *("Cannot declare", "Cannot overwrite"),
    *("DB index is out of range", "SELECT is not allowed", "without MULTI"),
    *("Internal Server Error", "invalid token", "no such", "not exist", "not found", "token expired"),
    *("must be shorter than", "too long"),
}
"""Texts by which the code recognises messages of others."""
PARTS = {
    *("--role {}", "and no", "request {}", "The request as it was accepted. The schema `request` describes it."),
    "GrowingIO offers it from version 13.4; export this tag by its tag_id, which the catalog of tags has",
    *("has no users of the version {} that can be queried: the newest is", "{} {} {}; leave out base_time"),
    *("a line of its chunked framing is too long", "a chunk is longer than its size", "the size of a chunk is invalid"),
    *("the fields behind its last chunk are invalid or too long", "and {} file(s) before it"),
    *("and states no reason", "Default: none.", "Default: {}.", "at most {} characters", "1 to {} texts{}", "each {}"),
}
"""Parts of messages whose wholes are in `composed.toml` or need no translation, and a description of the schema."""
WITHOUT_A_SOURCE = {"box.toml", "composed.toml", "schema.toml"}
"""Files whose messages are made from several texts, by recipes, or by the schema of requests."""


def entries() -> Iterator[tuple[str, str, str]]:
    for path in sorted(FOLDER.glob("*.toml")):
        for english, chinese in tomllib.loads(path.read_text(encoding="utf-8")).items():
            yield path.name, english, chinese


def names(template: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(template) if name is not None}


def test_every_message_of_the_code_has_a_translation() -> None:
    known = {normal(english) for _, english, _ in entries()} | FOR_PROGRAMS | OF_OTHERS | PARTS
    missing = [f"{', '.join(places)}: {text}" for text, places in messages().items() if text not in known]
    assert missing == [], f"add these templates to {FOLDER}"


def test_every_translation_is_of_a_message_of_the_code() -> None:
    made = messages().keys()
    stale = [english for file, english, _ in entries() if file not in WITHOUT_A_SOURCE and normal(english) not in made]
    assert stale == []
    assert made >= FOR_PROGRAMS | OF_OTHERS | PARTS


def test_each_message_is_translated_once_and_has_no_other_parts() -> None:
    found = [normal(english) for _, english, _ in entries()]
    assert [each for each in found if found.count(each) > 1] == []
    assert [english for _, english, chinese in entries() if not names(chinese) <= names(english)] == []


@pytest.mark.parametrize(
    ("english", "chinese"),
    [
        ("accepted", "已接受"),
        ("submitted as VGFn", "已提交，平台任务为 VGFn"),
        ("stage EXPORTING", "平台阶段 EXPORTING"),
        (
            "poll failed (platform_unavailable), retry in 3.2 s: POST https://x.cn/graphql: the response is HTTP 503: busy",
            "轮询失败（platform_unavailable），3.2 秒后重试：POST https://x.cn/graphql：应答是 HTTP 503: busy",
        ),
        (
            "failed: storage_error: PutObject on bucket b: NoSuchBucket, HTTP 404; create it, or correct s3.bucket",
            "失败：[storage_error] PutObject（存储桶 b）：NoSuchBucket，HTTP 404；请创建它，或更正 s3.bucket",
        ),
        (
            "restarted k/x.csv from the beginning: its upload cannot be resumed (it belongs to another file)",
            "k/x.csv 从头开始传输：之前的上传无法继续（它属于另一个文件）",
        ),
        (
            "worker stopped responding, number 2 in this step; the next worker may claim it after 1.5 s",
            "worker 停止响应，这是此步骤的第 2 次；1.5 秒后其他 worker 可以领取",
        ),
        ("cannot reach Redis at h:1/0 (connection refused)", "无法连接 h:1/0 的 Redis（连接被拒绝）"),
        ("must be at most 100, not 200", "不能大于 100，而不是 200"),
        ("must have at least 1 character, not 0", "至少要有 1 个字符，现有 0"),
        (
            "a connection to sensorsdata (api v2) cannot export sensorsdata.tag_users; set `api` of the connection to `horizon`",
            "sensorsdata 的连接（api v2）不能导出 sensorsdata.tag_users；请把连接的 `api` 设置为 `horizon`",
        ),
        (
            "connections.d.token: environment variable TOKEN is not set",
            "connections.d.token：没有设置环境变量 TOKEN",
        ),
        (
            "failed: operation_failed: the platform could not compute the segment: E7: 规则无效",
            "失败：[operation_failed] 平台未能计算该分群：E7：规则无效",
        ),
        (
            "f.toml, line 3: kinds.users.poll: unknown; did you mean path?; known here: path, stage",
            "f.toml 第 3 行：kinds.users.poll：未知的名称；是不是 path？；这里可用：path, stage",
        ),
        ("unknown field; did you mean tag_key?; allowed here: kind", "未知字段；是不是 tag_key？；这里允许：kind"),
        (
            "no CRC of single objects is supported, so Content-MD5 protects them",
            "不支持单个对象的 CRC，因此用 Content-MD5 保护",
        ),
        (
            "Redis at 127.0.0.1:6379 has no memory left and saves nothing (OOM); raise maxmemory, or reduce worker.retention_s",
            "127.0.0.1:6379 的 Redis 内存已用尽，不保存任何数据（OOM）；请调大 maxmemory，或减小 worker.retention_s",
        ),
    ],
)
def test_message_is_recognised_with_the_messages_in_it(english: str, chinese: str) -> None:
    assert translated("zh", english) == chinese
    assert translated("en", english) == english


@pytest.mark.parametrize(
    "text",
    [
        "",
        "订单不存在; code: 7",
        "Internal Server Error: busy",
        "{0.__class__} {name:t} {{}} {",
        "this is, not that",
        "; : " * (MESSAGE_MAX_CHARS // 4),
        "must be " * MESSAGE_MAX_CHARS,
    ],
)
def test_text_of_others_is_shown_unchanged(text: str) -> None:
    assert translated("zh", text) == text


def test_braces_in_a_part_are_no_parts_of_the_translation() -> None:
    assert translated("zh", "stored {key:t}/{0}.csv") == "已保存 {key:t}/{0}.csv"
