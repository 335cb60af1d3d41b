"""The general OAuth 2 client: what is sent to the token address, and which tokens are used."""

import base64
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pydantic import SecretStr, TypeAdapter

from export_worker.contract.auth import AuthSpec
from export_worker.credentials import Redactor
from export_worker.errors import AuthFailedError, ConfigError, PlatformMalformedError
from export_worker.platforms.http.auths import build_auth
from export_worker.platforms.http.client import Call, HttpClient
from export_worker.platforms.http.outgoing import Auth
from export_worker.secrets.secret import Secret
from support.scripted_server import ScriptedServer, Seen, json_replied

AUTH: TypeAdapter[AuthSpec] = TypeAdapter(AuthSpec)
VALUES = {"token": "refresh 1", "client_secret": "s3cret:ü", "api_key": "id 1"}
CALL = Call("GET", "/x")


def pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, form: PrivateFormat = PrivateFormat.PKCS8) -> str:
    return key.private_bytes(Encoding.PEM, form, NoEncryption()).decode()


@asynccontextmanager
async def connected(
    server: ScriptedServer, spec: Mapping[str, Any], values: Mapping[str, str] = VALUES
) -> AsyncIterator[tuple[HttpClient, Auth]]:
    client = HttpClient("saas", server.url, Redactor())
    spec = {"type": "oauth", "token_url": "/token", "client_id_setting": "api_key", **spec}
    auth = build_auth(AUTH.validate_python(spec), lambda name: Secret.of(values[name]), client)
    try:
        yield client, auth
    finally:
        await auth.close()
        await client.close()


@pytest.mark.parametrize(
    ("spec", "form", "authorization"),
    [
        ({}, {"grant_type": "client_credentials", "client_id": "id 1", "client_secret": "s3cret:ü"}, None),
        (
            {"client_id_setting": None, "client_id": "fixed", "scope": "a b", "audience": "https://api"},
            {
                "grant_type": "client_credentials",
                "client_id": "fixed",
                "client_secret": "s3cret:ü",
                "scope": "a b",
                "audience": "https://api",
            },
            None,
        ),
        (
            {"client_auth": "basic", "parameters": {"tenant": "7"}},
            {"grant_type": "client_credentials", "tenant": "7"},
            "Basic " + base64.b64encode(b"id+1:s3cret%3A%C3%BC").decode(),
        ),
        (
            {"grant": "refresh_token", "client_auth": "none"},
            {"grant_type": "refresh_token", "refresh_token": "refresh 1", "client_id": "id 1"},
            None,
        ),
    ],
)
async def test_token_request_has_the_form_of_its_grant(
    spec: dict[str, Any], form: dict[str, str], authorization: str | None
) -> None:
    async with ScriptedServer() as server, connected(server, spec) as (client, auth):
        server.on("/token", json_replied({"access_token": "access-1", "expires_in": 60}))
        server.on("/x", json_replied("done"))
        assert await client.call(CALL, auth) == "done"
    [asked] = server.asked("/token")
    assert {name: value for name, [value] in asked.form.items()} == form
    assert asked.headers.get("Authorization") == authorization
    assert server.asked("/x")[0].headers["Authorization"] == "Bearer access-1"


async def test_issued_refresh_token_replaces_the_configured_one_until_it_is_refused() -> None:
    async with ScriptedServer() as server, connected(server, {"grant": "refresh_token"}) as (client, auth):
        server.on(
            "/token",
            json_replied({"access_token": "access-1", "refresh_token": "refresh 2"}),
            json_replied({"error": "invalid_grant"}, status=400),
            json_replied({"access_token": "access-2"}),
        )
        server.on("/x", json_replied({}, status=401), json_replied("done"))
        assert await client.call(CALL, auth) == "done"
        assert client.redactor.text("refresh 2 access-2") == "*** ***"
    assert [asked.form["refresh_token"] for asked in server.asked("/token")] == [
        ["refresh 1"],
        ["refresh 2"],
        ["refresh 1"],
    ]


async def test_tokens_come_from_another_origin_that_the_specification_names() -> None:
    async with ScriptedServer() as server, ScriptedServer() as login:
        login.on("/oauth/token", json_replied({"access_token": "access-1"}))
        server.on("/x", json_replied("done"))
        async with connected(server, {"token_url": f"{login.url}/oauth/token"}) as (client, auth):
            assert await client.call(CALL, auth) == "done"
    assert [seen.target for seen in login.seen] == ["/oauth/token"]


RSA_KEY = rsa.generate_private_key(65537, 2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())


@pytest.mark.parametrize(
    "key",
    [pem(RSA_KEY), pem(RSA_KEY, PrivateFormat.TraditionalOpenSSL).replace("\n", "\\n"), pem(EC_KEY)],
    ids=["RSA in PKCS8", "RSA with escaped line ends", "P-256"],
)
@pytest.mark.parametrize("spec", [{"client_auth": "private_key_jwt"}, {"grant": "jwt_bearer", "client_auth": "none"}])
async def test_assertion_is_signed_with_the_private_key(key: str, spec: dict[str, str]) -> None:
    values = {"client_secret": key, "api_key": "client-7"}
    async with ScriptedServer() as server, connected(server, {**spec, "key_id": "k1"}, values) as (client, auth):
        server.on("/token", json_replied({"access_token": "access-1"}))
        server.on("/x", json_replied("done"))
        assert await client.call(CALL, auth) == "done"
        [asked] = server.asked("/token")
        [assertion] = asked.form["client_assertion" if "client_auth" in spec and "grant" not in spec else "assertion"]
        head, claims = verified(assertion)
        assert head["kid"] == "k1"
        assert (claims["iss"], claims["sub"], claims["aud"]) == ("client-7", "client-7", f"{server.url}/token")
        assert 0 < claims["exp"] - claims["iat"] <= 300
    assert key not in str(asked.form)


def verified(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns head and claims of a signed token. Raises InvalidSignature if another key signed it."""
    head, claims, signature = (base64.urlsafe_b64decode(part + "==") for part in token.split("."))
    signed = token.rpartition(".")[0].encode()
    if json.loads(head)["alg"] == "RS256":
        RSA_KEY.public_key().verify(signature, signed, padding.PKCS1v15(), hashes.SHA256())
    else:
        r, s = int.from_bytes(signature[:32]), int.from_bytes(signature[32:])
        EC_KEY.public_key().verify(encode_dss_signature(r, s), signed, ec.ECDSA(hashes.SHA256()))
    return json.loads(head), json.loads(claims)


def test_unusable_private_key_is_refused_when_the_connection_is_built() -> None:
    spec = AUTH.validate_python({"type": "oauth", "token_url": "/token", "client_auth": "private_key_jwt"})
    client = HttpClient("saas", "http://127.0.0.1:1", Redactor())
    with pytest.raises(ConfigError, match="must be PEM, of RSA or of the curve P-256") as caught:
        build_auth(spec, lambda _: Secret.of(pem(ec.generate_private_key(ec.SECP384R1()))), client)
    assert "PRIVATE KEY" not in str(caught.value)


@pytest.mark.parametrize(
    "token", ["", 7, "a b\n", "x" * 17_000, None], ids=["empty", "number", "lines", "long", "none"]
)
async def test_token_that_cannot_be_used_is_refused_without_showing_it(token: object) -> None:
    async with ScriptedServer() as server, connected(server, {}) as (client, auth):
        server.on("/token", json_replied({"access_token": token, "refresh_token": "x" * 17_000}))
        with pytest.raises(PlatformMalformedError, match=r": the response has no usable access_token$"):
            await client.call(CALL, auth)


async def test_encoded_secret_of_basic_authentication_is_masked() -> None:
    async def echo(seen: Seen) -> web.StreamResponse:
        return web.Response(status=400, text=seen.headers["Authorization"])

    redactor = Redactor()
    spec = AUTH.validate_python({"type": "oauth", "token_url": "/token", "client_id": "i", "client_auth": "basic"})
    async with ScriptedServer() as server:
        client = HttpClient("saas", server.url, redactor)
        secret = Secret(SecretStr("s3cret/with+signs=="), "connections.saas.client_secret", redactor)
        auth = build_auth(spec, lambda _: secret, client)
        server.on("/token", echo)
        with pytest.raises(AuthFailedError, match=r"HTTP 400: Basic .{0,6}\*\*\*.{0,6}$"):
            await client.call(CALL, auth)
        await auth.close()
        await client.close()


async def test_refused_client_raises_auth_failed_without_the_secret() -> None:
    async with ScriptedServer() as server, connected(server, {}) as (client, auth):
        server.on("/token", json_replied({"error": "invalid_client"}, status=401))
        with pytest.raises(AuthFailedError):
            await client.call(CALL, auth)
    assert len(server.asked("/token")) == 1
