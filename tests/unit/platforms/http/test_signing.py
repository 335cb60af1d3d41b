"""Signed requests: the examples that the platforms publish, and what a server receives."""

import base64
import hashlib
import hmac
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import pytest
from aiohttp import web
from pydantic import TypeAdapter, ValidationError
from yarl import URL

from export_worker.contract.auth import AuthSpec, SignerAuth
from export_worker.credentials import Redactor
from export_worker.errors import PlatformRefusedError
from export_worker.platforms.http.auths import build_auth
from export_worker.platforms.http.client import Call, HttpClient
from export_worker.platforms.http.downloads import Downloader
from export_worker.platforms.http.outgoing import Auth, Outgoing
from export_worker.platforms.http.signing import Key, Moment, sign
from export_worker.secrets.secret import Secret
from support.scripted_server import ScriptedServer, Seen, redirected, replied

AUTH: TypeAdapter[AuthSpec] = TypeAdapter(AuthSpec)
SIGNER: TypeAdapter[SignerAuth] = TypeAdapter(SignerAuth)
PLAIN = {"scheme": "hmac", "headers": {"X-Key": "{key}"}, "message": "{method} {path}?{query} {host} {key} {body}"}


def at(*when: int, nonce: str = "") -> Moment:
    return Moment(datetime(*when, tzinfo=UTC).timestamp(), nonce)  # type: ignore[arg-type,misc]


def test_volcengine_signature_is_that_of_the_published_example() -> None:
    # https://www.volcengine.com/docs/6369/67270. The page prints the key, which is valid nowhere.
    key = Key(
        "AKLTMjI2ODVlYzI3ZGY1NGU4ZjhjYWRjMTlmNTM5OTZkYzE",
        "TnpCak5XWXpZV1U0WkRaaE5ERmxaR0ZpTmpjeVkyUXlZek0wTWpJMU1qWQ==",
    )
    url = URL("https://iam.volcengineapi.com/?Action=ListUsers&Version=2018-01-01&Limit=10&Offset=0")
    headers = {"Host": "iam.volcengineapi.com", "Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
    spec = SIGNER.validate_python({"scheme": "volcengine", "region": "cn-north-1", "service": "iam"})
    signed = sign(spec, Outgoing("GET", url, headers), key, at(2020, 12, 30, 8, 18, 5))
    assert signed.headers == {
        "X-Date": "20201230T081805Z",
        "X-Content-Sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "Authorization": "HMAC-SHA256 "
        "Credential=AKLTMjI2ODVlYzI3ZGY1NGU4ZjhjYWRjMTlmNTM5OTZkYzE/20201230/cn-north-1/iam/request, "
        "SignedHeaders=content-type;host;x-content-sha256;x-date, "
        "Signature=28eeabbbd726b87002e0fe58ad8c1c768e619b06e2646f35b6ad7ed029a6d8a7",
    }


def test_aliyun_signature_is_that_of_the_published_example() -> None:
    # https://www.alibabacloud.com/help/en/sdk/product-overview/v3-request-structure-and-signature
    url = URL(
        "https://ecs.cn-shanghai.aliyuncs.com/"
        "?RegionId=cn-shanghai&ImageId=win2019_1809_x64_dtc_zh-cn_40G_alibase_20230811.vhd"
    )
    headers = {
        "host": "ecs.cn-shanghai.aliyuncs.com",
        "Accept-Encoding": "identity",
        "x-acs-action": "RunInstances",
        "x-acs-version": "2014-05-26",
    }
    moment = at(2023, 10, 26, 10, 22, 32, nonce="3156853299f313e23d1673dc12e1703d")
    key = Key("YourAccessKeyId", "YourAccessKeySecret")
    signed = sign(SIGNER.validate_python({"scheme": "aliyun"}), Outgoing("POST", url, headers), key, moment)
    assert signed.headers["Authorization"] == (
        "ACS3-HMAC-SHA256 Credential=YourAccessKeyId,SignedHeaders=host;x-acs-action;x-acs-content-sha256;x-acs-date;"
        "x-acs-signature-nonce;x-acs-version,Signature=06563a9e1b43f5dfe96b81484da74bceab24a1d853912eee15083a6f0f3283c0"
    )


@pytest.mark.parametrize("scheme", ["volcengine", "aliyun"])
@pytest.mark.parametrize(
    ("written", "same"),
    [
        ("/a:b/%e4%b8%ad?x=%e4", "/a%3Ab/%E4%B8%AD?x=%E4"),
        ("/a%2fb", "/a%2Fb"),
        ("/x?b=2&b=1&a=+&c", "/x?a=%20&b=2&b=1&c="),
        ("?x=%ff&x=~", "/?x=%FF&x=%7E"),
    ],
)
def test_signature_does_not_depend_on_how_a_url_is_written(scheme: str, written: str, same: str) -> None:
    spec = SIGNER.validate_python({"scheme": scheme, **({} if scheme == "aliyun" else {"region": "r", "service": "s"})})

    def signature(target: str) -> str:
        url = URL(f"https://a.cn{target}", encoded=True)
        return sign(spec, Outgoing("GET", url, {"Host": "a.cn"}), Key("k", "s"), at(2026, 1, 1)).headers[
            "Authorization"
        ]

    assert signature(written) == signature(same)
    assert signature("/x?b=2&b=1") != signature("/x?b=1&b=2")
    assert signature("/x?b=%FF") != signature("/x?b=%FE")


def test_datafinder_signature_follows_its_description() -> None:
    # https://www.volcengine.com/docs/84129/1261794 describes it without an example.
    spec = SIGNER.validate_python({"scheme": "datafinder", "valid_s": 300})
    request = Outgoing("POST", URL("https://finder.cn/openapi/v1/x?count=10"), {}, b'{"a": 1}')
    authorization = sign(spec, request, Key("ak", "sk"), Moment(1_600_000_000.9, "")).headers["Authorization"]
    prefix = "ak-v1/ak/1600000000/300"
    message = 'HTTPMethod:POST\nCanonicalURI:/openapi/v1/x\nCanonicalQueryString:count=10\nCanonicalBody:{"a": 1}'
    signing_key = hmac.new(b"sk", prefix.encode(), hashlib.sha256).hexdigest()
    assert authorization == f"{prefix}/{hmac.new(signing_key.encode(), message.encode(), hashlib.sha256).hexdigest()}"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"message": "{timestamp}"}, {"X-Signature": "hex sha256 1000", "X-Timestamp": "1000"}),
        (
            {"message": "{nonce}", "algorithm": "sha1", "encoding": "base64", "timestamp": "ms"},
            {"X-Signature": "base64 sha1 {key}", "X-Timestamp": "1000500"},
        ),
        (
            {"message": "{timestamp}", "timestamp": "iso", "header": "Authorization", "value": "H {key}:{signature}"},
            {"Authorization": "H ak:hex sha256 1970-01-01T00:16:40Z", "X-Timestamp": "1970-01-01T00:16:40Z"},
        ),
    ],
)
def test_configured_hmac_fills_its_templates_once(options: dict[str, str], expected: dict[str, str]) -> None:
    spec = SIGNER.validate_python({"scheme": "hmac", **options})
    signed = sign(spec, Outgoing("GET", URL("http://h/"), {}), Key("ak", "sk"), Moment(1000.5, "{key}"))
    assert {name: _computed(text) for name, text in expected.items()} == signed.headers


def _computed(text: str) -> str:
    """Replaces `hex sha256 TEXT` by the digest of the text."""
    head, found, rest = text.partition("hex sha256 ")
    if found:
        return head + hmac.new(b"sk", rest.encode(), "sha256").hexdigest()
    if text.startswith("base64 sha1 "):
        digest = hmac.new(b"sk", text.removeprefix("base64 sha1 ").encode(), "sha1").digest()
        return base64.b64encode(digest).decode()
    return text


def settings(name: str) -> Secret:
    return Secret.of({"api_key": "ak", "client_secret": "sk"}[name])


def checked(body: bytes = b"done", location: str = "") -> Callable[[Seen], Awaitable[web.StreamResponse]]:
    """A reply that verifies the signature of the request as it arrived."""

    async def reply(seen: Seen) -> web.StreamResponse:
        path, _, query = seen.target.partition("?")
        head = f"{seen.method} {path}?{query} {seen.headers['Host']} ak ".encode()
        expected = hmac.new(b"sk", head + seen.body, "sha256").hexdigest()
        if seen.headers.getall("X-Signature") != [expected] or seen.headers["X-Key"] != "ak":  # type: ignore[attr-defined]
            return web.Response(status=401)
        return await (redirected(location) if location else replied(body))(seen)

    return reply


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"message": "{path}{body_sha265}"}, "unknown placeholder {body_sha265}; known are method, path"),
        ({"value": "{body}"}, "unknown placeholder {body}; known are signature, key"),
        ({"headers": {"X-Key": "{keys}"}}, "unknown placeholder {keys}"),
        ({"value": "a\r\nX: {signature}"}, "must be printable ASCII"),
        ({"headers": {"X-Key": "ü"}}, "must be printable ASCII"),
    ],
)
def test_wrong_text_of_a_signature_is_refused(options: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError) as caught:
        AUTH.validate_python({"type": "signer", "scheme": "hmac", **options})
    assert says in str(caught.value)


def signing(client: HttpClient) -> Auth:
    return build_auth(AUTH.validate_python({"type": "signer", **PLAIN}), settings, client)


@pytest.mark.parametrize(
    "call",
    [
        Call("GET", "/x", query={"a": "b c/ü", "list": ["1", "2"]}),
        Call("POST", "/a%2Fb", json={"users": ["ü"]}),
        Call("POST", "/x", form={"a": "b c"}),
        Call("DELETE", "/x"),
    ],
    ids=str,
)
async def test_signature_covers_each_call_as_it_is_sent(call: Call) -> None:
    async with ScriptedServer() as server:
        server.on(call.path, checked(b'"done"'))
        client = HttpClient("volc", server.url, Redactor())
        assert await client.call(call, signing(client)) == "done"
        await client.close()


async def test_download_is_signed_at_each_request_to_the_own_origin_and_at_no_other() -> None:
    async with ScriptedServer() as server, ScriptedServer() as storage:
        client = HttpClient("volc", server.url, Redactor())
        server.on("/download", checked(location="/second?x=%2F"))
        server.on("/second", checked(location=f"{storage.url}/a.csv"))
        storage.on("/a.csv", replied(b"rows"))
        files = Downloader(client, signing(client), (storage.url.removeprefix("http://"),))
        async with files.open(URL(f"{server.url}/download?id=1", encoded=True), "a.csv") as download:
            assert b"".join([chunk async for chunk in download.chunks()]) == b"rows"
        await client.close()
    assert [seen.target for seen in server.seen] == ["/download?id=1", "/second?x=%2F"]
    [seen] = storage.seen
    assert not {"X-Signature", "X-Key", "Authorization"} & set(seen.headers)


async def test_streamed_body_is_refused_because_it_cannot_be_signed() -> None:
    async def lines() -> "object":
        yield b"a"

    async with ScriptedServer() as server:
        client = HttpClient("volc", server.url, Redactor())
        with pytest.raises(PlatformRefusedError, match="streamed body cannot be signed"):
            await client.call(Call("POST", "/up", data=lines()), signing(client))  # type: ignore[arg-type]
        await client.close()
    assert server.seen == []
