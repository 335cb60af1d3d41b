"""Where a setting is set: every form of TOML, and variables for values, sections and lists."""

import pytest

from export_worker.config.sources import Sources

TEXT = '''# a comment
namespace = "x"

[s3]  # section
bucket = """
[gateway]
port = 1
"""
tags = {
}
region = "a"

[ connections . "gio" ]
platform = "growingio"
allow_hosts = [
  "a",
  "b",
]
poll = { first_s = 1, max_s = 2 }
s3.prefix = "p"

[connections.gio.extra]
deep = 1
[[lists]]
one = 1
'''.replace("tags = {\n}", "tags = {}\n")


def source(*path: str, text: str = TEXT, **environment: str) -> str | None:
    return Sources("f.toml", text, environment).of(path)


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("namespace", 2),
        ("s3", 4),
        ("s3.bucket", 5),
        ("s3.tags", 9),
        ("s3.region", 11),
        ("connections.gio", 13),
        ("connections.gio.allow_hosts.1", 15),
        ("connections.gio.poll.max_s", 19),
        ("connections.gio.s3.prefix", 20),
        ("connections.gio.base_url", 13),
        ("connections.gio.extra.deep", 23),
        ("lists", 24),
        ("connections.other.platform", 13),
    ],
)
def test_line_of_a_setting_or_of_the_section_around_it(path: str, line: int) -> None:
    assert source(*path.split(".")) == f"f.toml, line {line}"
    assert source(*path.split("."), text=TEXT.replace("\n", "\r\n")) == f"f.toml, line {line}"


def test_setting_that_no_source_has() -> None:
    assert source("gateway", "port") is None
    assert source("gateway", "port", text="") is None


@pytest.mark.parametrize(
    ("path", "environment", "expected"),
    [
        ("s3.bucket", {"EXPORT_S3__BUCKET": "x"}, "EXPORT_S3__BUCKET"),
        ("s3.bucket", {"export_s3__bucket": "x"}, "export_s3__bucket"),
        ("s3.bucket", {"EXPORT_S3__REGION": "x"}, "f.toml, line 5"),
        ("s3.endpoint_url", {"EXPORT_S3__REGION": "x"}, "f.toml, line 4"),
        ("s3.endpoint_url", {"EXPORT_S3": '{"endpoint_url": "x"}'}, "EXPORT_S3"),
        ("s3.bucket", {"EXPORT_S3": "no JSON"}, "f.toml, line 5"),
        ("connections.new.platform", {"EXPORT_CONNECTIONS__NEW__TOKEN": "x"}, "EXPORT_CONNECTIONS__NEW__TOKEN"),
        (
            "connections.gio.allow_hosts.0",
            {"EXPORT_CONNECTIONS__GIO__ALLOW_HOSTS": "[1]"},
            "EXPORT_CONNECTIONS__GIO__ALLOW_HOSTS",
        ),
        ("gateway.api_keys.0", {"EXPORT_GATEWAY__API_KEYS": "[1]"}, "EXPORT_GATEWAY__API_KEYS"),
    ],
)
def test_variable_that_sets_a_setting(path: str, environment: dict[str, str], expected: str) -> None:
    assert source(*path.split("."), **environment) == expected


def test_place_is_added_in_front_of_the_advice() -> None:
    sources = Sources("f.toml", "[s3]\nbuket = 1", {})
    located = "s3.buket: unknown setting (in f.toml, line 2); did you mean bucket?"
    assert sources.located("s3.buket: unknown setting; did you mean bucket?") == located
    assert sources.located("s3.bucket needs more") == "s3.bucket needs more (in f.toml, line 1)"
    assert sources.located("gateway.port: is wrong") == "gateway.port: is wrong"
    assert sources.located(located) == located
