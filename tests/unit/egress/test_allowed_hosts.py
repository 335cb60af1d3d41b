"""Hosts and ports that a download may come from, in every spelling."""

import pytest
from yarl import URL

from export_worker.egress.allowed_hosts import AllowedHosts, ascii_host
from export_worker.egress.hosts import split_host_and_port

OWN = URL("https://op.example.cn")


@pytest.mark.parametrize(
    ("entry", "url"),
    [
        ("files.example.cn:8443", "https://files.example.cn:8443/a"),
        ("FILES.Example.cn.:8443", "https://files.example.cn:8443/a"),
        ("files.example.cn:8443", "https://FILES.example.CN.:8443/a"),
        ("files.example.cn", "https://files.example.cn/a"),
        ("files.example.cn", "http://files.example.cn:9000/a"),
        ("files.example.cn:443", "https://files.example.cn/a"),
        ("files.example.cn:80", "http://files.example.cn/a"),
        ("[::1]:8443", "https://[::1]:8443/a"),
        ("[::1]:8443", "https://[0:0:0:0:0:0:0:1]:8443/a"),
        ("[0:0::1]:8443", "https://[::1]:8443/a"),
        ("[2001:DB8::A]", "https://[2001:db8:0::a]:1/a"),
        ("::1", "https://[::1]:8443/a"),
        ("bücher.example:8443", "https://xn--bcher-kva.example:8443/a"),
        ("xn--bcher-kva.example:8443", "https://bücher.example:8443/a"),
        ("BÜCHER.example.", "https://bücher.example/a"),
        ("straße.example", "https://straße.example/a"),
        ("10.0.0.7:9000", "http://10.0.0.7:9000/a"),
    ],
)
@pytest.mark.parametrize("encoded", [True, False])
def test_entry_allows_its_host_in_every_spelling(entry: str, url: str, *, encoded: bool) -> None:
    target = URL(url, encoded=encoded and url.isascii())
    assert AllowedHosts(OWN, []).refusal(target) is not None
    assert AllowedHosts(OWN, [entry]).refusal(target) is None


@pytest.mark.parametrize(
    ("entry", "url"),
    [
        ("files.example.cn:8443", "https://files.example.cn/a"),
        ("files.example.cn:443", "http://files.example.cn/a"),
        ("files.example.cn", "https://a.files.example.cn/a"),
        ("files.example.cn", "https://example.cn/a"),
        ("[::1]:8443", "https://[::1]:8444/a"),
        ("[::1]:8443", "https://[::2]:8443/a"),
        ("straße.example", "https://strasse.example/a"),
        ("10.0.0.7", "https://[::ffff:10.0.0.7]/a"),
        ("op.example.cn:8443", "https://op.example.cn:8444/a"),
        ("op.example.cn:8443", "http://op.example.cn/a"),
    ],
)
def test_entry_allows_no_other_host_and_port(entry: str, url: str) -> None:
    assert AllowedHosts(OWN, [entry]).refusal(URL(url)) is not None


@pytest.mark.parametrize(
    ("own", "url"),
    [
        ("https://op.example.cn", "https://op.example.cn:443/a"),
        ("https://OP.example.cn.", "https://op.example.cn/a"),
        ("http://[::1]:8080/api", "http://[0::1]:8080/a"),
        ("http://bücher.example:8080", "http://xn--bcher-kva.example:8080/a"),
        ("http://xn--bcher-kva.example:8080", "http://bücher.example:8080/a"),
    ],
)
def test_own_host_and_port_are_allowed_in_every_spelling(own: str, url: str) -> None:
    assert AllowedHosts(URL(own), []).refusal(URL(url)) is None
    assert AllowedHosts(URL(own), []).refusal(URL(url).with_port(1)) is not None


@pytest.mark.parametrize(
    "entry",
    [
        "",
        ":8443",
        "files.example.cn:",
        "files.example.cn:0",
        "files.example.cn:65536",
        "files.example.cn:https",
        "https://files.example.cn",
        "files.example.cn/exports",
        "user@files.example.cn",
        "*.example.cn",
        "[::1",
        "[::1]8443",
        "[1.2.3]:8443",
        "a b",
        ".",
        "files.example.cn:8443\n",
        "files%2eexample.cn",
    ],
)
def test_entry_that_is_no_host_is_refused(entry: str) -> None:
    with pytest.raises(ValueError):
        split_host_and_port(entry)


def test_name_that_cannot_be_encoded_is_allowed_nowhere() -> None:
    assert ascii_host("a..ü") == "a..ü"
    assert AllowedHosts(OWN, ["a..ü"]).refusal(OWN) is None
