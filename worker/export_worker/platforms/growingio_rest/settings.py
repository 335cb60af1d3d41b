"""Settings and authentication of a GrowingIO REST connection."""

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, ConfigDict, SecretStr, model_validator

from export_worker.contract.field_types import PathKey
from export_worker.platforms.http.auth import SecretAuth, check_header_value
from export_worker.platforms.http.client import HttpClient
from export_worker.platforms.http.outgoing import Auth, Credential
from export_worker.platforms.settings import ConnectionSettings
from export_worker.secrets.secret import Secret

RESULT_PATH = "/v1/api/job/result/{id}"
"""Path of the 2.9 document. A 4.1 page shows this path and `/v1/api/projects/{project_id}/job/result/{id}`."""

_TEMPLATE = re.compile(r"(?:[A-Za-z0-9/._~-]|\{id\}|\{project_id\})+")


def _result_path(path: str) -> str:
    if not path.startswith("/") or not _TEMPLATE.fullmatch(path) or path.count("{id}") != 1:
        raise ValueError(f"must be a path with {{id}} and optionally {{project_id}}, like {RESULT_PATH}")
    return path


class GrowingioRestSettings(ConnectionSettings):
    """A GrowingIO REST connection."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    language: Literal["CH", "US"] | None = None
    """Sent in the header of that name. Default: none; then the platform's own, CH."""
    space_id: PathKey | None = None
    """Added to the paths of a project's segment profiles and tags, as version 4.x requires. Default: none.

    1 to 128 letters, digits, `_` or `-`."""
    result_path: Annotated[str, AfterValidator(_result_path)] = RESULT_PATH
    """The path of a job's result. Default `/v1/api/job/result/{id}`.

    `{project_id}` is replaced by the export's project. If the path contains `{project_id}`, the result of an export
    without a project (of the data centre) is requested at the default path."""
    id_column: str = "gio_id"
    """A text that every list of users contains. A short body without it counts as an error text. Empty turns this
    check off. Default `gio_id`."""

    @model_validator(mode="after")
    def _token_alone(self) -> Self:
        if self.client_secret is not None or self.api_key is not None:
            raise ValueError("growingio-rest takes neither client_secret nor api_key; give token")
        if self.token is None:
            raise ValueError("token is needed; GrowingIO's pages show it in the personal settings")
        return self

    def result_path_of(self, project_id: str | None) -> str:
        """Returns the template of the result's path for one export."""
        return RESULT_PATH if project_id is None and "{project_id}" in self.result_path else self.result_path


def growingio_rest_auth(name: str, settings: GrowingioRestSettings, client: HttpClient) -> Auth:
    """Builds the authentication of the connection `name`: its token. The client's redactor receives the token.

    Raises:
        ConfigError: The token cannot be read, or cannot be sent in a header. The message names the setting.
    """
    more = {} if settings.language is None else {"language": settings.language}
    token = Secret(settings.token or SecretStr(""), f"connections.{name}.token", client.redactor)
    return SecretAuth(
        [token.must(check_header_value)], lambda value: Credential(headers={"Authorization": f"Bearer {value}", **more})
    )
