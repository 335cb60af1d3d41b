"""How the segment profile or tag of an export is looked up with GrowingIO's REST API. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from export_worker.contract.request import ExportKind, GrowingioSegmentProfileUsers, GrowingioUserTagUsers
from export_worker.platforms.http.values import count_of


@dataclass(frozen=True, slots=True)
class Entity:
    """The segment profile or tag that an export names.

    Args:
        resource: Lists such entities.
        project: The project of the listing; None for the data centre.
        key: Its key.
        users: The operation that returns a page of its users, and the arguments of the operation.
    """

    resource: str
    project: str | None
    key: str
    users: tuple[str, Mapping[str, Any]]


def entity_of(export: ExportKind) -> Entity | None:
    """Returns what an export names; None if this platform does not offer the kind."""
    match export:
        case GrowingioSegmentProfileUsers(project_id=project, segment_key=key):
            arguments = {"project_ID": project, "segment_key": key, "limit": 1}
            return Entity("segments", project, key, ("segment_profile_users", arguments))
        case GrowingioUserTagUsers(project_id=None, tag_key=key):
            return Entity("tags", None, key, ("dc_user_tag_users", {"tag_key": key, "limit": 1}))
        case GrowingioUserTagUsers(project_id=project, tag_key=key, in_space=in_space):
            arguments = {"project_ID": project, "tag_key": key, "limit": 1}
            if in_space is False:
                return Entity("project-tags", project, key, ("project_user_tag_users", arguments))
            return Entity("tags", project, key, ("user_tag_users", arguments))
        case _:
            return None


def users_of(page: Any) -> int | None:
    """Returns the number of all users that a page of them states, which the platform writes as `1203.0`."""
    return count_of(page.get("totalCount")) if isinstance(page, Mapping) else None
