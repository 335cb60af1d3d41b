"""How requests to a platform are authenticated, as plain data. A recipe names one of these by its `type`.

Secrets are not part of this data: a field of the type `SettingName` names the setting of the connection that has the
value. All other fields are the texts that are sent.
"""

import re
from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints

from export_worker.contract.documented import Documented
from export_worker.contract.wording import Pattern

SettingName = Annotated[
    str,
    Pattern(
        r"^(token|client_secret|api_key|options\.[a-z][a-z0-9_]{0,63})$",
        "must name a setting of the connection: token, client_secret, api_key or options.NAME",
    ),
]
"""The setting of the connection that has the value."""
HeaderName = Annotated[
    str, Pattern(r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}$", "must be the name of a header: 1 to 64 characters")
]
Parameter = Annotated[str, StringConstraints(min_length=1, max_length=128)]
Text = Annotated[str, StringConstraints(max_length=1024)]
HeaderText = Annotated[str, Pattern(r"^[ -~]{0,1024}$", "must be printable ASCII: at most 1,024 characters")]
"""A part of the value of a header."""
ScopePart = Annotated[str, Pattern(r"^[A-Za-z0-9_.{}-]{1,64}$", "must have 1 to 64 letters, digits, _, . or -")]


_PLACEHOLDER = re.compile(r"\{([a-z_0-9]+)\}")


def _knows(*names: str) -> Callable[[str], str]:
    """Returns a check that a text has no other placeholders: an empty text in place of one would not be noticed."""

    def check(text: str) -> str:
        unknown = next((name for name in _PLACEHOLDER.findall(text) if name not in names), None)
        if unknown is not None:
            raise ValueError(f"has the unknown placeholder {{{unknown}}}; known are {', '.join(names)}")
        return text

    return check


SignedText = Annotated[
    str,
    StringConstraints(min_length=1, max_length=1024),
    AfterValidator(
        _knows("method", "path", "query", "host", "timestamp", "nonce", "key", "body", "body_sha256", "body_md5")
    ),
]
SignatureText = Annotated[HeaderText, AfterValidator(_knows("signature", "key", "timestamp", "nonce"))]


class _Auth(Documented):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NoAuth(_Auth):
    """Requests have no credential."""

    type: Literal["none"] = "none"
    """`none`. Required."""


class BearerAuth(_Auth):
    """Requests have the header `Authorization: Bearer TOKEN`."""

    type: Literal["bearer"] = "bearer"
    """`bearer`. Required."""
    token: SettingName = "token"  # noqa: S105 - the name of a setting
    """The setting that has the token. Default `token`."""


class BasicAuth(_Auth):
    """Requests have the header `Authorization: Basic …` of a user and a password."""

    type: Literal["basic"] = "basic"
    """`basic`. Required."""
    user: SettingName = "api_key"
    """The setting that has the user. Default `api_key`."""
    password: SettingName | None = "token"  # noqa: S105 - the name of a setting
    """The setting that has the password; none sends an empty one. Default `token`."""


class HeaderAuth(_Auth):
    """Requests have a header with a secret."""

    type: Literal["header"] = "header"
    """`header`. Required."""
    name: HeaderName
    """The name of the header, 1 to 64 characters. Required."""
    value: SettingName = "token"
    """The setting that has the secret. Default `token`."""
    prefix: HeaderText = ""
    """Put before the secret, such as `Token `. At most 1,024 characters. Default: empty."""


class QueryAuth(_Auth):
    """Requests have a secret in the query string."""

    type: Literal["query"] = "query"
    """`query`. Required."""
    name: Parameter
    """The name of the parameter, 1 to 128 characters. Required."""
    value: SettingName = "token"
    """The setting that has the secret. Default `token`."""


class OAuthAuth(_Auth):
    """Requests have a token that an OAuth 2 server issues (RFC 6749, RFC 7523). It is renewed before it expires."""

    type: Literal["oauth"] = "oauth"
    """`oauth`. Required."""
    token_url: Text
    """Where tokens are requested: a path below `base_url`, or a complete URL. At most 1,024 characters. Required."""
    grant: Literal["client_credentials", "refresh_token", "jwt_bearer"] = "client_credentials"
    """The grant: `client_credentials`, `refresh_token` or `jwt_bearer` (RFC 7523, 2.1). Default `client_credentials`.

    A server that answers a refresh with a new refresh token ends the old one, so the new one is used from then on. It
    is known to this process only."""
    client_auth: Literal["body", "basic", "private_key_jwt", "none"] = "body"
    """How the client authenticates: `body`, `basic`, `private_key_jwt` (RFC 7523, 2.2) or `none`. Default `body`.

    `body` sends `client_id` and `client_secret` in the form, and `basic` sends them in the `Authorization` header."""
    client_id: Text = ""
    """The client's id as text. At most 1,024 characters. Default: empty; then `client_id_setting` has it."""
    client_id_setting: SettingName | None = None
    """The setting that has the client's id. Default: none."""
    client_secret: SettingName = "client_secret"  # noqa: S105 - the name of a setting
    """The setting that has the client's secret. Default `client_secret`."""
    refresh_token: SettingName = "token"  # noqa: S105 - the name of a setting
    """The setting that has the refresh token. Default `token`."""
    private_key: SettingName = "client_secret"
    """The setting that has the private key: PEM, of RSA (RS256) or of the curve P-256 (ES256).

    Default `client_secret`."""
    key_id: Text = ""
    """The `kid` in the head of a signed JWT. At most 1,024 characters. Default: empty; then none is sent."""
    subject: Text = ""
    """The `sub` of a `jwt_bearer` assertion. At most 1,024 characters. Default: empty; then the client's id."""
    jwt_audience: Text = ""
    """The `aud` of a signed JWT. At most 1,024 characters. Default: empty; then the complete token address."""
    scope: Text = ""
    """The form's `scope`. At most 1,024 characters. Default: empty; then it is not sent."""
    audience: Text = ""
    """The form's `audience`, as Auth0 needs it. At most 1,024 characters. Default: empty; then it is not sent."""
    parameters: Annotated[dict[Parameter, Text], Field(max_length=16)] = {}
    """Further parameters of the form, at most 16. Default: none."""
    scheme: Literal["Token", "Bearer", "raw"] = "Bearer"
    """The scheme before the token in the header `Authorization`; `raw` sends the token alone. Default `Bearer`."""


class _Signer(_Auth):
    type: Literal["signer"] = "signer"
    """`signer`. Required."""
    key: SettingName = "api_key"
    """The setting that has the key's id (access key, AK). Default `api_key`."""
    secret: SettingName = "client_secret"  # noqa: S105 - the name of a setting
    """The setting that has the key's secret (SK). Default `client_secret`."""


class VolcengineSigner(_Signer):
    """Requests are signed with Volcengine's and BytePlus's HMAC-SHA256 (https://www.volcengine.com/docs/6369/67269)."""

    scheme: Literal["volcengine"]
    """`volcengine`. Required."""
    region: ScopePart
    """The region in the signature, such as `cn-north-1`. 1 to 64 characters. Required."""
    service: ScopePart
    """The service in the signature, such as `iam`. 1 to 64 characters. Required."""


class DatafinderSigner(_Signer):
    """Requests are signed as DataFinder's OpenAPI needs it, `ak-v1` (https://www.volcengine.com/docs/84129/1261794)."""

    scheme: Literal["datafinder"]
    """`datafinder`. Required."""
    valid_s: Annotated[int, Field(ge=1, le=86_400)] = 1800
    """Seconds for which a signature is valid. Default 1,800, 1 to 86,400."""


class AliyunSigner(_Signer):
    """Requests are signed with Alibaba Cloud's ACS3-HMAC-SHA256.

    See https://www.alibabacloud.com/help/en/sdk/product-overview/v3-request-structure-and-signature. `x-acs-action` and
    `x-acs-version` are headers of the request.
    """

    scheme: Literal["aliyun"]
    """`aliyun`. Required."""


class HmacSigner(_Signer):
    """Requests are signed with an HMAC of some of their parts."""

    scheme: Literal["hmac"]
    """`hmac`. Required."""
    message: SignedText = "{method}\n{path}\n{query}\n{timestamp}\n{body_sha256}"
    """What is signed. `{method}`, `{path}`, `{query}`, `{host}`, `{timestamp}`, `{nonce}`, `{key}`, `{body}`,
    `{body_sha256}` and `{body_md5}` are replaced. 1 to 1,024 characters.

    Default: method, path, query string, timestamp and the body's SHA-256, one a line."""
    algorithm: Literal["sha1", "sha256", "sha512"] = "sha256"
    """The hash function. Default `sha256`."""
    encoding: Literal["hex", "base64"] = "hex"
    """How the signature is written. Default `hex`."""
    timestamp: Literal["s", "ms", "iso"] = "s"
    """The time: seconds or milliseconds since 1970, or `2026-01-31T12:00:00Z`. Default `s`."""
    header: HeaderName = "X-Signature"
    """The header with the signature, 1 to 64 characters. Default `X-Signature`."""
    value: SignatureText = "{signature}"
    """What that header has. `{signature}`, `{key}`, `{timestamp}` and `{nonce}` are replaced. Default `{signature}`.

    At most 1,024 characters."""
    headers: Annotated[dict[HeaderName, SignatureText], Field(max_length=16)] = {"X-Timestamp": "{timestamp}"}
    """Further headers, with the same replacements, at most 16. Default `X-Timestamp`."""


SignerAuth = Annotated[VolcengineSigner | DatafinderSigner | AliyunSigner | HmacSigner, Field(discriminator="scheme")]
AuthSpec = Annotated[
    NoAuth | BearerAuth | BasicAuth | HeaderAuth | QueryAuth | OAuthAuth | SignerAuth, Field(discriminator="type")
]
"""Every way to authenticate. `pydantic.TypeAdapter(AuthSpec)` reads it from a table of TOML or JSON."""
