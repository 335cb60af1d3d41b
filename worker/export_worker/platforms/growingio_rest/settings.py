"""What a GrowingIO REST connection can be told, and how it is let in."""

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, ConfigDict, model_validator

from export_worker.contract.request import PathKey
from export_worker.credentials import reveal
from export_worker.platforms.http.auth import StaticAuth, check_header_value
from export_worker.platforms.http.client import Auth, Credential, HttpClient
from export_worker.platforms.settings import ConnectionSettings

RESULT_PATH = "/v1/api/job/result/{id}"
"""As the 2.9 document has it. A 4.1 page shows `/v1/api/projects/{project_id}/job/result/{id}` and this one, both."""

_TEMPLATE = re.compile(r"(?:[A-Za-z0-9/._~-]|\{id\}|\{project_id\})+")


def _result_path(path: str) -> str:
    if not path.startswith("/") or not _TEMPLATE.fullmatch(path) or path.count("{id}") != 1:
        raise ValueError(f"must be a path with {{id}} and perhaps {{project_id}}, like {RESULT_PATH}")
    return path


class GrowingioRestSettings(ConnectionSettings):
    """A GrowingIO REST connection.

    Args:
        language: Sent as the header of that name; without it the platform takes CH.
        space_id: Put into the paths of segment profiles and tags of a project, as 4.x wants it.
        result_path: Where a job's result is looked for. `{project_id}` is the export's project; an export of the data
            centre has none and is looked for at the default path.
        id_column: Stands in every list of users; a short body without it is an error text. Empty: not looked for.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    language: Literal["CH", "US"] | None = None
    space_id: PathKey | None = None
    result_path: Annotated[str, AfterValidator(_result_path)] = RESULT_PATH
    id_column: str = "gio_id"

    @model_validator(mode="after")
    def _token_alone(self) -> Self:
        if self.client_secret is not None or self.api_key is not None:
            raise ValueError("growingio-rest takes neither client_secret nor api_key; give token")
        if self.token is None:
            raise ValueError("token is needed; it stands in the personal settings of GrowingIO's pages")
        return self

    def result_path_of(self, project_id: str | None) -> str:
        """The template for one export."""
        return RESULT_PATH if project_id is None and "{project_id}" in self.result_path else self.result_path


def growingio_rest_auth(name: str, settings: GrowingioRestSettings, client: HttpClient) -> Auth:
    """The way in of the connection `name`: a token that somebody copied. The client's redactor learns it.

    Raises:
        ConfigError: The token cannot be read, or cannot stand in a header. Names the setting.
    """
    setting = f"connections.{name}.token"
    token = reveal(settings.token, setting) if settings.token is not None else ""
    client.redactor.add(token)
    headers = {"Authorization": f"Bearer {check_header_value(token, setting)}"}
    if settings.language is not None:
        headers["language"] = settings.language
    return StaticAuth(Credential(headers=headers))
