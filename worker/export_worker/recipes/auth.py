"""How the requests of a recipe authenticate. Pure.

Templates find settings of the connection: `token`, `api_key`, `client_secret` and `options.NAME`. A secret that a
template names is required.
"""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from export_worker.recipes.types import HeaderName, Path, RecipeModel, Table, Template


class NoAuth(RecipeModel):
    """No credential."""

    type: Literal["none"] = "none"
    """`none`."""


class BearerAuth(RecipeModel):
    """`Authorization: Bearer …`."""

    type: Literal["bearer"]
    """`bearer`."""
    token: Template = "{token}"  # noqa: S105 - a template, which names a setting
    """The token. Default `{token}`."""


class BasicAuth(RecipeModel):
    """`Authorization: Basic …`."""

    type: Literal["basic"]
    """`basic`."""
    user: Template
    """The name of the user, such as `{api_key}`. Required."""
    password: Template = ""
    """The password, such as `{token}`. Default: empty."""


class HeaderAuth(RecipeModel):
    """Headers with secrets."""

    type: Literal["header"]
    """`header`."""
    headers: Annotated[Mapping[HeaderName, Template], Field(min_length=1, max_length=8)]
    """The headers, such as `{ X-API-Key = "{api_key}" }`, at most 8. Required."""


class QueryAuth(RecipeModel):
    """Parameters with secrets."""

    type: Literal["query"]
    """`query`."""
    query: Annotated[Mapping[str, Template], Field(min_length=1, max_length=8)]
    """The parameters, such as `{ token = "{token}" }`, at most 8. Required."""


class OauthAuth(RecipeModel):
    """OAuth 2: a token that is fetched with a secret of the connection, and renewed."""

    type: Literal["oauth"]
    """`oauth`."""
    token_path: Path
    """The path that issues tokens, below the address of the connection. Required."""
    client_id: Template
    """The id of the client, such as `{options.client_id}`. Required."""
    client_secret: Template = "{client_secret}"  # noqa: S105 - a template, which names a setting
    """The secret of the client. Default `{client_secret}`."""
    scope: Template = ""
    """The scopes. Default: none."""
    parameters: Table = {}
    """Further parameters of the request for a token, such as `audience`. Default: none."""


class SignerAuth(RecipeModel):
    """A signature of each request."""

    type: Literal["signer"]
    """`signer`."""
    scheme: Annotated[str, StringConstraints(min_length=1, max_length=32)]
    """How requests are signed, such as `volcengine`. Required."""
    access_key: Template = "{api_key}"
    """The id of the key. Default `{api_key}`."""
    secret_key: Template = "{client_secret}"  # noqa: S105 - a template, which names a setting
    """The secret of the key. Default `{client_secret}`."""
    region: Template = ""
    """The region, where the scheme has one. Default: none."""
    service: Template = ""
    """The service, where the scheme has one. Default: none."""


AnyAuth = Annotated[
    NoAuth | BearerAuth | BasicAuth | HeaderAuth | QueryAuth | OauthAuth | SignerAuth, Field(discriminator="type")
]
