"""The export request: every kind is accepted, every refusal names its field, and JSON loses nothing."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export_worker.contract.kind_names import PLATFORM_OF_KIND
from export_worker.contract.kinds import OtherKind
from export_worker.contract.parsing import PROBLEMS_MAX, REQUEST_MAX_BYTES, parse_request
from export_worker.contract.request import (
    ExportRequest,
    GrowingioAnalysis,
    GrowingioSegmentProfileUsers,
    GrowingioSegmentUsers,
    GrowingioTagUsers,
    GrowingioUserTagUsers,
    SensorsdataSegmentUsers,
    SensorsdataTagUsers,
    SensorsdataUserGroupUsers,
    ThinkingdataClusterUsers,
    kind_models,
)
from export_worker.errors import InvalidRequestError

MINIMAL: dict[str, dict[str, Any]] = {
    "growingio.tag_users": {"tag_key": "tag_abc"},
    "growingio.segment_users": {"project_id": "WlGk4Daj", "segment_id": "qgQMXnD3"},
    "growingio.analysis": {"project_id": "WlGk4Daj", "analysis_id": "qgQMXnD3", "analysis_type": "FUNNELS"},
    "growingio.segment_profile_users": {"project_id": "p-1", "segment_key": "seg_1"},
    "growingio.user_tag_users": {"tag_key": "tag_1"},
    "thinkingdata.cluster_users": {"project_id": 377, "cluster_id": 12},
    "sensorsdata.user_group_users": {"group_id": 7},
    "sensorsdata.segment_users": {"segment_name": "user_segment_vip"},
    "sensorsdata.tag_users": {"tag_name": "user_tag_level"},
}
TAG, SEGMENT, ANALYSIS, PROFILE, USER_TAG, CLUSTER, GROUP, HORIZON_SEGMENT, HORIZON_TAG = MINIMAL
NAMES = ["$city", "名前", "a b"]
COMPLETE: dict[str, list[dict[str, Any]]] = {
    TAG: [
        {"properties": NAMES, "charset": "UTF-16LE", "detail_export": True, "file_name": "标签 & more.csv"},
        {"tag_key": None, "tag_id": "qgQMXnD3", "detail_export": False},
        {"tag_key": "$a#b.c:d-e_F"},
    ],
    SEGMENT: [{"tags": ["abcd1234"], "properties": NAMES, "charset": "UTF-16LE"}, {"tags": [], "properties": []}],
    ANALYSIS: [{"analysis_type": name} for name in ("CHARTS", "FUNNELS", "RETENTIONS", "FREQUENCIES")]
    + [{"charset": "GB18030"}],
    PROFILE: [
        {"properties": ["p"] * 60},
        {"file_format": "json"},
        {"file_format": "csv", "csv_header_type": "name"},
        {"csv_header_type": "key"},
    ],
    USER_TAG: [{"project_id": "p1", "properties": NAMES, "file_format": "csv", "csv_header_type": "key"}],
    CLUSTER: [
        {"refresh": False, "columns": ["#user_id"], "file_format": "json", "catalog": "tag"},
        {"cluster_id": None, "cluster_name": "分群", "catalog": "cluster", "file_format": "csv"},
    ],
    GROUP: [
        {"execute": False, "base_times": ["2026-11-22 00:00:00"], "columns": ["id"], "file_format": "csv"},
        {"file_format": "json", "group_id": 2**63 - 1},
    ],
    HORIZON_SEGMENT: [{"evaluate": False, "columns": ["id"], "file_format": "csv"}, {"segment_name": "分群 1"}],
    HORIZON_TAG: [{"base_time": "2026-11-21T16:00:00Z", "file_format": "json"}],
}


def body(kind: str = TAG, export: dict[str, Any] | None = None, **top: Any) -> dict[str, Any]:
    return {"connection": "gio", "export": {"kind": kind, **MINIMAL[kind], **(export or {})}, **top}


def parquet(kind: str = TAG, export: dict[str, Any] | None = None, **output: Any) -> dict[str, Any]:
    return body(kind, export, output={"format": "parquet", **output})


def without(document: dict[str, Any], *path: str) -> dict[str, Any]:
    copy: dict[str, Any] = json.loads(json.dumps(document))
    inner = copy
    for name in path[:-1]:
        inner = inner[name]
    del inner[path[-1]]
    return copy


def parse(document: Any) -> ExportRequest:
    return parse_request(json.dumps(document))


def problems_of(text: bytes | str) -> dict[str, str]:
    with pytest.raises(InvalidRequestError) as caught:
        parse_request(text)
    return {problem.field: problem.message for problem in caught.value.problems}


@pytest.mark.parametrize("kind", MINIMAL)
def test_minimal_request_of_each_kind_is_accepted(kind: str) -> None:
    request = parse(body(kind))
    assert (request.kind, request.platform) == (kind, PLATFORM_OF_KIND[kind])
    assert request.output.charset is None
    assert request.output.compression == "none"
    assert request.deadline_s is None
    assert request.metadata == {}


@pytest.mark.parametrize(("kind", "fields"), [(kind, fields) for kind, found in COMPLETE.items() for fields in found])
def test_every_field_of_each_kind_is_accepted(kind: str, fields: dict[str, Any]) -> None:
    dumped = parse(body(kind, fields)).export.model_dump(mode="json")
    assert {name: dumped[name] for name in fields} == fields


def test_tables_of_this_test_have_every_kind() -> None:
    assert list(kind_models())[: len(MINIMAL)] == list(MINIMAL)
    assert all(issubclass(model, OtherKind) for model in list(kind_models().values())[len(MINIMAL) :])
    assert list(PLATFORM_OF_KIND) == list(MINIMAL) == list(COMPLETE)


def test_documented_request_is_accepted() -> None:
    request = parse(
        {
            "connection": "gio",
            "export": {
                "kind": "growingio.segment_users",
                "project_id": "WlGk4Daj",
                "segment_id": "qgQMXnD3",
                "charset": "UTF-16LE",
            },
            "output": {"charset": "UTF-8", "compression": "gzip"},
            "idempotency_key": "order-42",
            "deadline_s": 7200,
            "metadata": {"order": "42"},
        }
    )
    assert isinstance(request.export, GrowingioSegmentUsers)
    assert request.output.compression == "gzip"
    assert request.deadline_s == 7200.0


@pytest.mark.parametrize("charset", [None, "UTF-8", "utf8", "U8"])
@pytest.mark.parametrize(
    ("kind", "export"), [(TAG, {"charset": "UTF-16LE"}), (PROFILE, {"file_format": "csv"}), (GROUP, {})]
)
def test_parquet_is_accepted_for_every_kind_with_csv_files(
    kind: str, export: dict[str, Any], charset: str | None
) -> None:
    document = parquet(kind, export, charset=charset, schema={"年 \n龄": "int64", "": "date"}, count_rows=True)
    request = parse(document)
    assert request.output.column_types == {"年 \n龄": "int64", "": "date"}
    assert parse_request(request.model_dump_json(exclude_none=True)) == request
    assert request.model_dump(mode="json")["output"] == document["output"] | {"compression": "none"}


@pytest.mark.parametrize(
    "charset", ["UTF-8", "utf_16", "UTF-16LE", "GB18030", "gbk", "Big5", "latin-1", "UTF-8-SIG", "hz"]
)
def test_output_charset_is_accepted(charset: str) -> None:
    assert parse(body(output={"charset": charset})).output.charset == charset


@pytest.mark.parametrize("deadline_s", [0.001, 1, 30 * 86400, None])
def test_deadline_within_the_bounds_is_accepted(deadline_s: float | None) -> None:
    assert parse(body(deadline_s=deadline_s)).deadline_s == deadline_s


ALL_KINDS = f"must be one of {', '.join(MINIMAL)}"
ONE_TAG = "exactly one of tag_key and tag_id"
ONE_CLUSTER = "exactly one of cluster_id and cluster_name"
HASH_ID = "must be 8 letters or digits, such as WlGk4Daj"
PATH_TEXT = (
    "must have 1 to 128 characters, without spaces, control characters and / \\ ? # %, and no dot at the beginning"
)
PATH_KEY = "must have 1 to 128 characters: letters, digits, _ and -, such as WlGk4Daj"
KEY = "must have 1 to 256 characters: letters, digits and _$#.:-, such as tag_gender"
NAME = "must not contain control characters, such as line ends"
SECTION = "must have 1 to 64 characters: letters, digits, _ and -"
PLATFORM_CHARSET = "must be the name of a charset, such as UTF-8 or GB18030"
BASE_TIME = "must be a date and time such as 2026-11-22 00:00:00"
NO_TEXT: list[Any] = [42, 1.5, True, None, [], {}]
CHARSET = "must be a charset that Python knows"
REFUSALS: list[tuple[dict[str, Any], str, str]] = [
    # The request itself.
    (without(body(), "connection"), "connection", "is required"),
    (without(body(), "export"), "export", "is required"),
    (body() | {"connection": "a b"}, "connection", SECTION),
    (body() | {"connection": "a" * 65}, "connection", SECTION),
    (body() | {"connection": ""}, "connection", SECTION),
    (body() | {"connection": "gio\n"}, "connection", SECTION),
    (body() | {"connection": 7}, "connection", "must be text in quotes, not "),
    (body() | {"connection": None}, "connection", "must be text in quotes, not "),
    (body() | {"export": None}, "export", "must be a JSON object"),
    (body() | {"export": [1]}, "export", "must be a JSON object"),
    (body(idempotency_key=""), "idempotency_key", "at least 1 character"),
    (body(idempotency_key="k" * 256), "idempotency_key", "at most 255 characters"),
    (body(idempotency_key=42), "idempotency_key", "must be text in quotes, not "),
    # Unknown fields, at each level.
    (body(tokn="x"), "tokn", "unknown field; allowed here: connection, export, output"),
    (body() | {"kind": TAG}, "kind", "unknown field; it belongs into export; allowed here: connection"),
    (body() | {"tag_key": "x"}, "tag_key", "unknown field; it belongs into export"),
    (body() | {"schema": {}}, "schema", "unknown field; it belongs into output"),
    (body() | {"charset": "UTF-8"}, "charset", "unknown field; it belongs into output or export"),
    (body(outputs={}), "outputs", "unknown field; did you mean output?"),
    (body(output={"compresion": "gzip"}), "output.compresion", "allowed here: charset, compression"),
    (body(export={"tag_ky": "x"}), "export.tag_ky", "allowed here: kind, tag_key, tag_id, properties, charset"),
    (body(SEGMENT, {"tag_key": "x"}), "export.tag_key", "allowed here: kind, project_id, segment_id, tags"),
    (body(ANALYSIS, {"properties": []}), "export.properties", "allowed here: kind, project_id, analysis_id"),
    (body(PROFILE, {"charset": "x"}), "export.charset", "segment_key"),
    (body(USER_TAG, {"segment_key": "x"}), "export.segment_key", "tag_key"),
    (body(CLUSTER, {"group_id": 1}), "export.group_id", "cluster_name"),
    (body(GROUP, {"cluster_id": 1}), "export.cluster_id", "base_times"),
    # The kind.
    (without(body(), "export", "kind"), "export.kind", ALL_KINDS),
    (body(export={"kind": "growingio.users"}), "export.kind", ALL_KINDS),
    (body(export={"kind": ""}), "export.kind", ALL_KINDS),
    (body(export={"kind": None}), "export.kind", ALL_KINDS),
    (body(export={"kind": 3}), "export.kind", ALL_KINDS),
    # The output.
    (body(output=None), "output", "must be a JSON object"),
    (body(output="gzip"), "output", "must be a JSON object"),
    (body(output={"compression": "zip"}), "output.compression", "must be 'none', 'gzip' or 'zstd'"),
    (body(output={"compression": None}), "output.compression", "must be 'none', 'gzip' or 'zstd'"),
    (body(output={"count_rows": "yes"}), "output.count_rows", "must be true or false, not "),
    (body(output={"format": "csv"}), "output.format", "must be 'parquet'"),
    (body(output={"schema": {"a": "int64"}}), "output.schema", 'is allowed only with format "parquet"'),
    (parquet(schema={}), "output.schema", "at least 1 item"),
    (parquet(schema=["a"]), "output.schema", "must be a JSON object"),
    (parquet(schema={"a": "int"}), "output.schema.a", "must be 'string', 'int64', 'float64', 'bool', 'date' or"),
    (parquet(null_values=["NULL"]), "output.null_values", "is allowed only with schema"),
    (parquet(column_types={"a": "int64"}), "output.column_types", "compression, count_rows, format, schema"),
    *(
        (parquet(charset=name), "output.charset", "must be UTF-8 or left out")
        for name in ("GBK", "UTF-8-SIG", "utf_16")
    ),
    (parquet(PROFILE, {"file_format": "json"}), "output.format", "Parquet is made from CSV"),
    (parquet(CLUSTER, {"file_format": "json"}), "output.format", "Parquet is made from CSV"),
    (parquet(GROUP, {"file_format": "json"}), "output.format", "leave out export.file_format, or set it to csv"),
    (body(output={"charset": 8}), "output.charset", "must be text in quotes, not "),
    (body(output={"charset": "c" * 41}), "output.charset", "at most 40 characters"),
    (body(output={"charset": ""}), "output.charset", "at least 1 character"),
    *(
        (body(output={"charset": name}), "output.charset", CHARSET)
        for name in ("rot13", "base64", "zip", "hex", "bz2", "uu", "quopri", "undefined")
    ),
    *(
        (body(output={"charset": name}), "output.charset", CHARSET)
        for name in ("UTF-9", "gbk\0", "UTF8\n", "utf-8\r\n", "\tutf-8", "utf-8\u2028", "ü", "aliases", ".")
    ),
    *(
        (body(output={"charset": name}), "output.charset", f"must be a charset of files; {name} is")
        for name in ("idna", "punycode", "unicode-escape", "raw_unicode_escape", "UTF-7", "u7", "charmap")
    ),
    # The deadline.
    *(
        (body(deadline_s=value), "deadline_s", "must be at least 0.001, not ")
        for value in (0, -1, -0.5, 5e-324, 0.0009)
    ),
    *((body(deadline_s=value), "deadline_s", "must be at most 2592000, not ") for value in (2592001, 1e300, 10**30)),
    *(
        (body(deadline_s=float(value)), "deadline_s", "must be a finite number, not ")
        for value in ("nan", "inf", "-inf")
    ),
    *((body(deadline_s=value), "deadline_s", "must be a number, not ") for value in ("7200", "soon", "", True, [1])),
    # The metadata.
    (body(metadata=None), "metadata", "must be a JSON object"),
    (body(metadata=["order"]), "metadata", "must be a JSON object"),
    *((body(metadata={"a": value}), "metadata.a", "must be text in quotes, not ") for value in NO_TEXT),
    (body(metadata={"a": "x" * 4088}), "metadata", "has 4097 bytes as JSON; at most 4096 are allowed"),
    (body(metadata={"a": "中" * 1363}), "metadata", "has 4098 bytes as JSON"),
    (body(metadata={"k" * 4096: ""}), "metadata", "at most 4096"),
    # growingio.tag_users
    (body(export={"tag_key": None}), "export.tag_key", ONE_TAG),
    (without(body(), "export", "tag_key"), "export.tag_key", ONE_TAG),
    (body(export={"tag_id": "qgQMXnD3"}), "export.tag_key", ONE_TAG),
    (body(export={"tag_key": None, "tag_id": "qgQMXnD"}), "export.tag_id", HASH_ID),
    (body(export={"tag_key": None, "tag_id": "qgQMXnD34"}), "export.tag_id", HASH_ID),
    (body(export={"tag_key": None, "tag_id": "qgQMXnD\n"}), "export.tag_id", HASH_ID),
    (body(export={"tag_key": None, "tag_id": "qgQ-XnD3"}), "export.tag_id", HASH_ID),
    (body(export={"tag_key": ""}), "export.tag_key", KEY),
    (body(export={"tag_key": "a/b"}), "export.tag_key", KEY),
    (body(export={"tag_key": "k" * 257}), "export.tag_key", KEY),
    (body(export={"properties": "city"}), "export.properties", "must be a list in square brackets, not "),
    (body(export={"properties": [1]}), "export.properties.0", "must be text in quotes, not "),
    (body(export={"properties": ["a", ""]}), "export.properties.1", "at least 1 character"),
    (body(export={"properties": ["a\nb"]}), "export.properties.0", NAME),
    (body(export={"properties": ["a" * 513]}), "export.properties.0", "at most 512 characters"),
    (body(export={"charset": "UTF 8"}), "export.charset", PLATFORM_CHARSET),
    (body(export={"charset": "UTF8\n"}), "export.charset", PLATFORM_CHARSET),
    (body(connection="gio\n"), "connection", SECTION),
    (body(export={"charset": "c" * 41}), "export.charset", PLATFORM_CHARSET),
    (body(export={"detail_export": 1}), "export.detail_export", "must be true or false, not "),
    (body(export={"detail_export": "true"}), "export.detail_export", "must be true or false, not "),
    (body(export={"file_name": ""}), "export.file_name", "at least 1 character"),
    (body(export={"file_name": "a\x00"}), "export.file_name", NAME),
    # growingio.segment_users
    (without(body(SEGMENT), "export", "project_id"), "export.project_id", "is required"),
    (without(body(SEGMENT), "export", "segment_id"), "export.segment_id", "is required"),
    (body(SEGMENT, {"segment_name": "x"}), "export.segment_name", "must not be given together with segment_id"),
    (body(SEGMENT, {"project_id": "short"}), "export.project_id", HASH_ID),
    (body(SEGMENT, {"segment_id": 12345678}), "export.segment_id", "must be text in quotes, not "),
    (body(SEGMENT, {"tags": ["abcd1234", "x"]}), "export.tags.1", HASH_ID),
    # growingio.analysis
    (without(body(ANALYSIS), "export", "analysis_id"), "export.analysis_id", "is required"),
    (without(body(ANALYSIS), "export", "analysis_type"), "export.analysis_type", "is required"),
    (
        body(ANALYSIS, {"analysis_type": "charts"}),
        "export.analysis_type",
        "must be 'CHARTS', 'FUNNELS', 'RETENTIONS' or 'FREQUENCIES'",
    ),
    (body(ANALYSIS, {"analysis_id": "a b c d "}), "export.analysis_id", HASH_ID),
    # growingio.segment_profile_users and growingio.user_tag_users
    (without(body(PROFILE), "export", "segment_key"), "export.segment_key", "is required"),
    (body(PROFILE, {"project_id": ".."}), "export.project_id", PATH_KEY),
    (body(PROFILE, {"segment_key": "a/b"}), "export.segment_key", PATH_TEXT),
    (body(PROFILE, {"properties": ["p"] * 61}), "export.properties", "at most 60 items"),
    (body(PROFILE, {"file_format": "xml"}), "export.file_format", "must be 'csv' or 'json'"),
    (body(PROFILE, {"csv_header_type": "id"}), "export.csv_header_type", "must be 'key' or 'name'"),
    (
        body(PROFILE, {"file_format": "json", "csv_header_type": "key"}),
        "export.csv_header_type",
        "is allowed only with file_format",
    ),
    (without(body(USER_TAG), "export", "tag_key"), "export.tag_key", "is required"),
    (body(USER_TAG, {"tag_key": "a?b"}), "export.tag_key", PATH_TEXT),
    (body(USER_TAG, {"project_id": "%2e"}), "export.project_id", PATH_KEY),
    (body(USER_TAG, {"properties": ["p"] * 61}), "export.properties", "at most 60 items"),
    (
        body(USER_TAG, {"file_format": "json", "csv_header_type": "name"}),
        "export.csv_header_type",
        "is allowed only with file_format csv",
    ),
    # thinkingdata.cluster_users
    *(
        (body(CLUSTER, {"project_id": bad}), "export.project_id", "must be a whole number, not ")
        for bad in ("12", True, 1.5)
    ),
    *((body(CLUSTER, {"project_id": bad}), "export.project_id", f"must be above 0, not {bad}") for bad in (0, -1)),
    (
        body(CLUSTER, {"project_id": 2**63}),
        "export.project_id",
        "must be at most 9223372036854775807, not this large number",
    ),
    (body(CLUSTER, {"cluster_id": "12"}), "export.cluster_id", "must be a whole number, not "),
    (body(CLUSTER, {"cluster_name": "both"}), "export.cluster_id", ONE_CLUSTER),
    (without(body(CLUSTER), "export", "cluster_id"), "export.cluster_id", ONE_CLUSTER),
    (body(CLUSTER, {"cluster_id": None, "cluster_name": ""}), "export.cluster_name", "at least 1 character"),
    (body(CLUSTER, {"catalog": "tags"}), "export.catalog", "must be 'cluster' or 'tag'"),
    (body(CLUSTER, {"refresh": 1}), "export.refresh", "must be true or false, not "),
    (body(CLUSTER, {"columns": []}), "export.columns", "at least 1 item"),
    (body(CLUSTER, {"file_format": "CSV"}), "export.file_format", "must be 'csv' or 'json'"),
    # sensorsdata.user_group_users
    (without(body(GROUP), "export", "group_id"), "export.group_id", "is required"),
    *((body(GROUP, {"group_id": bad}), "export.group_id", "must be a whole number, not ") for bad in ("7", True, 0.5)),
    (body(GROUP, {"group_id": 0}), "export.group_id", "must be above 0, not 0"),
    (body(GROUP, {"execute": "yes"}), "export.execute", "must be true or false, not "),
    (body(GROUP, {"base_times": []}), "export.base_times", "at least 1 item"),
    (body(GROUP, {"base_times": ["2026-11-22"]}), "export.base_times.0", BASE_TIME),
    (body(GROUP, {"base_times": ["2026-11-22T00:00:00"]}), "export.base_times.0", BASE_TIME),
    (body(GROUP, {"base_times": ["٢٠٢٦-01-01 00:00:00"]}), "export.base_times.0", BASE_TIME),
    (body(GROUP, {"base_times": ["2026-02-30 00:00:00"]}), "export.base_times.0", "must be an existing date and time"),
    (body(GROUP, {"base_times": ["2026-02-03 00:00:00"] * 2}), "export.base_times", "must not contain a value twice"),
    (body(GROUP, {"columns": [None]}), "export.columns.0", "must be text in quotes, not "),
    (body(GROUP, {"file_format": "gzip"}), "export.file_format", "must be 'csv' or 'json'"),
    # sensorsdata.segment_users and sensorsdata.tag_users
    (without(body(HORIZON_SEGMENT), "export", "segment_name"), "export.segment_name", "is required"),
    (body(HORIZON_SEGMENT, {"evaluate": "no"}), "export.evaluate", "must be true or false, not "),
    (body(HORIZON_TAG, {"tag_name": ""}), "export.tag_name", "at least 1 character"),
    (body(HORIZON_TAG, {"base_time": "2026-11-22 00:00:00"}), "export.base_time", "2026-11-21T16:00:00Z"),
    (body(HORIZON_TAG, {"base_time": "2026-02-30T00:00:00Z"}), "export.base_time", "must be an existing date and time"),
]


@pytest.mark.parametrize(
    ("document", "field", "message"),
    [pytest.param(*row, id=f"{number}-{row[1][:40]}") for number, row in enumerate(REFUSALS)],
)
def test_refusal_names_the_field_and_what_is_allowed(document: dict[str, Any], field: str, message: str) -> None:
    problems = problems_of(json.dumps(document))
    assert message in problems[field]
    assert not problems[field].startswith(f"{field.rpartition('.')[2]} "), "the message repeats the name of the field"


def test_refusal_names_every_problem() -> None:
    problems = problems_of(json.dumps(body(SEGMENT, {"project_id": "x", "tag": 1}, deadline_s=-1) | {"connection": ""}))
    assert set(problems) == {"connection", "export.project_id", "export.tag", "deadline_s"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "; it is empty"),
        (b"", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (" \n\t", "; it is empty"),
        ("{", "; it ends too early"),
        ('# mine\nconnection = "gio"\n', "; this looks like TOML; a request is JSON"),
        ('[export]\nkind = "growingio.analysis"\n', "; this looks like TOML; a request is JSON"),
        ("connection: gio\nexport:\n  kind: x\n", "; this looks like YAML; a request is JSON"),
        ("---\n- connection: gio\n", "; this looks like YAML; a request is JSON"),
        ('{"connection": True}', "; write true, false or null"),
        ('{"connection": "gio", // mine', "; JSON has no comments"),
        ("{\u201cconnection\u201d: 1}", '; JSON needs double quotes (")'),
        ('{"metadata": {"city": "Zürich"}}'.encode("latin-1"), "it is not text in UTF-8 (byte 25); save"),
        ("{} {}", "is not JSON"),
        ("{'connection': 'gio'}", '; JSON needs double quotes (")'),
        ("[" * 5000, "is not JSON"),
        ('{"connection": "\\ud800"}', "is not JSON"),
        ('"\ud800"', "is not JSON"),
        ("[]", "must be a JSON object, not a list"),
        ('"text"', "must be a JSON object"),
        ("null", "must be a JSON object"),
        ("7", "must be a JSON object, not a number"),
    ],
)
def test_body_that_is_no_json_object_is_refused(text: bytes | str, message: str) -> None:
    assert message in problems_of(text)["request"]


def padded(size_bytes: int) -> bytes:
    start = json.dumps(body()).encode()
    return start + b" " * (size_bytes - len(start))


def test_refusal_names_at_most_the_maximum_of_problems() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse_request(json.dumps({f"f{number}": 1 for number in range(5000)}))
    assert len(caught.value.problems) == PROBLEMS_MAX


def test_request_above_the_maximum_size_is_refused() -> None:
    assert parse_request(padded(REQUEST_MAX_BYTES)).connection == "gio"
    too_large = "must have at most 65536 bytes"
    assert too_large in problems_of(padded(REQUEST_MAX_BYTES + 1))["request"]
    assert too_large in problems_of(json.dumps({"connection": "中" * 30_000}, ensure_ascii=False))["request"]


def test_metadata_of_the_maximum_size_is_accepted() -> None:
    assert parse(body(metadata={"a": "x" * 4087})).metadata["a"] == "x" * 4087


@pytest.mark.parametrize("constructed", [{"deadline_s": "12"}, {"idempotency_key": ""}, {"metadata": {"a": 1}}])
def test_request_built_in_python_is_validated_like_json(constructed: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(constructed))):
        ExportRequest(connection="gio", export=GrowingioTagUsers(tag_key="t"), **constructed)


def test_bytes_and_text_are_parsed_alike() -> None:
    text = json.dumps(body(metadata={"名": "值"}), ensure_ascii=False)
    assert parse_request(text) == parse_request(text.encode())


SAME = [
    (body(), dict(reversed(body().items()))),
    (body(SEGMENT), body(SEGMENT) | {"export": dict(reversed(body(SEGMENT)["export"].items()))}),
    (body(), body(output={"compression": "none"})),
    (body(), body(output={"charset": None})),
    (body(), body(output={"count_rows": False})),
    (body(), body(output={"format": None, "schema": None})),
    (parquet(schema={"a": "bool", "b": "date"}), parquet(schema={"b": "date", "a": "bool"})),
    (body(), body(metadata={}, deadline_s=None, idempotency_key=None)),
    (body(), body(export={"properties": None, "tag_id": None})),
    (body(CLUSTER), body(CLUSTER, {"refresh": True, "catalog": "cluster"})),
    (body(GROUP), body(GROUP, {"execute": True})),
    (body(idempotency_key="a"), body(idempotency_key="b")),
    (body(metadata={"a": "1", "b": "2"}), body(metadata={"b": "2", "a": "1"})),
    (body(deadline_s=60), body(deadline_s=60.0)),
]
OTHER = [
    (body(), body() | {"connection": "other"}),
    (body(), body(USER_TAG, {"tag_key": "tag_abc"})),
    (body(), body(export={"tag_key": "tag_abd"})),
    (body(), body(output={"compression": "gzip"})),
    (body(output={"compression": "zstd"}), body(output={"compression": "gzip"})),
    (body(), body(output={"charset": "UTF-8"})),
    (body(), body(output={"count_rows": True})),
    (body(), parquet()),
    (parquet(), parquet(schema={"a": "string"})),
    (parquet(schema={"a": "int64"}), parquet(schema={"a": "float64"})),
    (body(), body(deadline_s=60)),
    (body(), body(metadata={"a": "1"})),
    (body(), body(export={"properties": []})),
    (body(export={"properties": ["a", "b"]}), body(export={"properties": ["b", "a"]})),
    (body(CLUSTER), body(CLUSTER, {"refresh": False})),
    (body(metadata={"a": "1"}), body(metadata={"1": "a"})),
]


def test_request_from_before_count_rows_keeps_its_fingerprint() -> None:
    request = {"connection": "gio", "export": {"kind": TAG, "tag_key": "t"}, "output": {"compression": "gzip"}}
    assert parse(request).fingerprint() == "6aa783693a56f4d4b5905e11d50a3ce5e441d068168292dc4eb8ee0323f29a24"
    assert parse(request).output.model_dump() == {"charset": None, "compression": "gzip"}


@pytest.mark.parametrize(("one", "other"), SAME)
def test_equal_requests_have_equal_fingerprints(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert parse(one).fingerprint() == parse(other).fingerprint()


@pytest.mark.parametrize(("one", "other"), OTHER)
def test_different_requests_have_different_fingerprints(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert parse(one).fingerprint() != parse(other).fingerprint()


text = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30)
hash_ids = st.text("abcXYZ019", min_size=8, max_size=8)
path_keys = st.text("abcXYZ019_-", min_size=1, max_size=20)
ids = st.integers(1, 2**63 - 1)
some_names = st.none() | st.lists(text, max_size=4)
columns = st.none() | st.lists(text, min_size=1, max_size=4)
platform_charsets = st.none() | st.sampled_from(["UTF-8", "UTF-16LE", "GB18030"])
file_formats = st.none() | st.sampled_from(["csv", "json"])
csv_files = {"file_format": st.sampled_from([None, "csv"]), "csv_header_type": st.sampled_from([None, "key", "name"])}
exports = st.one_of(
    st.builds(
        GrowingioTagUsers,
        tag_id=hash_ids,
        properties=some_names,
        charset=platform_charsets,
        detail_export=st.none() | st.booleans(),
        file_name=st.none() | text,
    ),
    st.builds(
        GrowingioSegmentUsers,
        project_id=hash_ids,
        segment_id=hash_ids,
        tags=st.none() | st.lists(hash_ids, max_size=3),
        properties=some_names,
        charset=platform_charsets,
    ),
    st.builds(
        GrowingioAnalysis,
        project_id=hash_ids,
        analysis_id=hash_ids,
        analysis_type=st.sampled_from(["CHARTS", "FUNNELS", "RETENTIONS", "FREQUENCIES"]),
        charset=platform_charsets,
    ),
    st.builds(
        GrowingioSegmentProfileUsers, project_id=path_keys, segment_key=path_keys, properties=some_names, **csv_files
    ),
    st.builds(
        GrowingioUserTagUsers, tag_key=path_keys, project_id=st.none() | path_keys, properties=some_names, **csv_files
    ),
    st.builds(
        ThinkingdataClusterUsers,
        project_id=ids,
        cluster_name=text,
        cluster_id=st.none(),
        catalog=st.sampled_from(["cluster", "tag"]),
        refresh=st.booleans(),
        columns=columns,
        file_format=file_formats,
    ),
    st.builds(
        SensorsdataUserGroupUsers,
        group_id=ids,
        execute=st.booleans(),
        base_times=st.none() | st.just(["2026-11-22 03:04:05"]),
        columns=columns,
        file_format=file_formats,
    ),
    st.builds(
        SensorsdataSegmentUsers,
        segment_name=text,
        evaluate=st.booleans(),
        base_time=st.none() | st.just("2026-11-22T03:04:05Z"),
        columns=columns,
        file_format=file_formats,
    ),
    st.builds(SensorsdataTagUsers, tag_name=text, columns=columns, file_format=file_formats),
)
requests = st.builds(
    ExportRequest,
    connection=path_keys,
    export=exports,
    idempotency_key=st.none() | text,
    deadline_s=st.none() | st.floats(0.001, 30 * 86400),
    metadata=st.dictionaries(text, text, max_size=3),
)


@settings(max_examples=60)
@given(requests, st.booleans())
def test_request_is_equal_after_a_round_trip_through_json(request: ExportRequest, exclude_none: bool) -> None:
    again = parse_request(request.model_dump_json(exclude_none=exclude_none))
    assert again == request
    assert again.fingerprint() == request.fingerprint()


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)


@settings(max_examples=50)
@given(
    st.recursive(
        scalars, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(text, inner, max_size=2), max_leaves=4
    )
)
def test_wrong_value_of_a_field_is_refused_with_the_field_and_nothing_else_is_raised(value: Any) -> None:
    for name in ("connection", "export", "output", "idempotency_key", "deadline_s", "metadata"):
        assert refused_fields(body() | {name: value}) <= {name, "request"}


def refused_fields(document: Any) -> set[str]:
    """Returns the top-level fields that are refused; none if the request is accepted. Raises no other error."""
    try:
        parse_request(json.dumps(document))
    except InvalidRequestError as error:
        return {problem.field.partition(".")[0] for problem in error.problems}
    return set()


def test_schema_of_a_request_forbids_unknown_fields_and_lists_every_kind() -> None:
    schema = ExportRequest.model_json_schema(mode="validation")
    assert schema["additionalProperties"] is False
    assert set(schema["required"]) == {"connection", "export"}
    known = set(schema["properties"]["export"]["discriminator"]["mapping"])
    # Another test of this process may have loaded a recipe since the schema was made.
    assert set(MINIMAL) < known <= set(kind_models())
    kinds = [found for found in schema["$defs"].values() if "kind" in found["properties"]]
    assert {found["properties"]["kind"]["const"] for found in kinds} == known
    assert all(found["additionalProperties"] is False for found in schema["$defs"].values())


def test_differences_of_two_requests_are_named_by_field() -> None:
    first = parse(body(SEGMENT, metadata={"a": "1"}, idempotency_key="k"))
    assert first.differences(parse(body(SEGMENT, metadata={"a": "1"}))) == ()
    other = body(SEGMENT, {"segment_id": "AVpZBzpK"}, output={"compression": "gzip"}, metadata={"b": "1"})
    assert first.differences(parse(other)) == ("export.segment_id", "metadata.a", "metadata.b", "output.compression")
    assert first.differences(parse(body(TAG)))[:2] == ("export.kind", "export.project_id")
