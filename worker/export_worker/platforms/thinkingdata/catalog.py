"""Lists the clusters and tags of a ThinkingData project, page by page."""

import json
from collections.abc import Mapping
from typing import Any

from export_worker.errors import FieldProblem, InvalidRequestError, PlatformMalformedError
from export_worker.platforms.http.client import Call
from export_worker.platforms.http.listings import ListingLimit
from export_worker.platforms.http.values import whole_number
from export_worker.platforms.thinkingdata.api import ThinkingdataApi
from export_worker.platforms.thinkingdata.operations import CATALOGS, CLUSTER_TYPES, TAG_TYPES

RESOURCES = ("clusters", "tags")
_CATALOGS_OF: Mapping[str, tuple[str, ...]] = {"clusters": CATALOGS, "tags": CATALOGS[1:]}
"""The platform calls clusters and tags both clusters, and each item states its type. Tags can also be listed alone."""
_TYPES_OF = {"catalog_cluster": CLUSTER_TYPES, "catalog_tag": TAG_TYPES}


async def list_clusters(
    api: ThinkingdataApi, resource: str, project: str | None, page_size: int
) -> list[dict[str, Any]]:
    """Lists the clusters or tags of a project; each item is unchanged from the platform's response.

    Raises:
        InvalidRequestError: The resource is unknown; or `project` is missing or no number.
        PlatformError: The platform did not give a usable response.
    """
    catalogs = _CATALOGS_OF.get(resource)
    if catalogs is None:
        raise InvalidRequestError([FieldProblem("resource", f"must be one of {', '.join(RESOURCES)}")])
    project_id = _project_id(resource, project)
    return [item for catalog in catalogs for item in await _list(api, project_id, catalog, page_size)]


def _project_id(resource: str, project: str | None) -> int:
    if project is None:
        raise InvalidRequestError([FieldProblem("project", f"is required to list {resource}")])
    if not (project.isascii() and project.isdecimal() and len(project) < 20):
        raise InvalidRequestError([FieldProblem("project", "must be a number")])
    return int(project)


async def _list(api: ThinkingdataApi, project_id: int, catalog: str, page_size: int) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    number, limit = 1, ListingLimit(f"user-cluster-list of {catalog}")
    while True:
        call = list_call(catalog, project_id=project_id, number=number, page_size=page_size)
        data = await api.object(call)
        items = _items(data, call)
        limit.add(items)
        # A server without paging returns all items each time. A page that has no new items ends the listing.
        known = len(found)
        found |= {json.dumps(item, sort_keys=True): item for item in items}
        at_least = number * page_size + (len(items) >= page_size)
        if len(found) == known or len(found) >= _total(data, default=at_least):
            return list(found.values())
        number += 1


def list_call(catalog: str, *, project_id: int, number: int, page_size: int) -> Call:
    """Returns the call for one page of a catalog."""
    body = {
        "clusterCatalog": catalog,
        "clusterTypes": list(_TYPES_OF[catalog]),
        "pagerHeader": {"pageNum": number, "pageSize": page_size},
        "projectId": project_id,
    }
    return Call("POST", "/open/user-cluster-list", json=body, is_listing=True)


def _items(data: Mapping[str, Any], call: Call) -> list[dict[str, Any]]:
    items = data.get("userClusters")
    if items is None and ("userClusters" in data or _total(data, default=-1) == 0):
        return []
    if items is None:
        raise PlatformMalformedError(f"{call}: the response has no userClusters")
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise PlatformMalformedError(f"{call}: userClusters is no list of objects")
    return items


def _total(data: Mapping[str, Any], *, default: int) -> int:
    """Returns the number of all items as the platform states it, or the default."""
    result = data.get("pagerResult")
    total = whole_number(result.get("totalNum")) if isinstance(result, Mapping) else None
    return default if total is None else total
