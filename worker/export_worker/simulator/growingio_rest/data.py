"""The data of the simulated REST API: segment profiles, tags and users, with keys from GrowingIO's document."""

from typing import Any

from export_worker.simulator.growingio.data import DEFAULT_PROJECT, OTHER_PROJECT

_ENDED = {"stage": "FINISH", "detectedAt": "2022-04-26T02:00:00.000Z"}


def _segment(entity_id: str, key: str, name: str) -> dict[str, Any]:
    return {
        "id": entity_id,
        "name": name,
        "key": key,
        "createdBy": "DIRECT",
        "description": None,
        "scheduler": "DAILY",
        "detector": _ENDED,
    }


def _tag(entity_id: str, key: str, name: str) -> dict[str, Any]:
    return {"id": entity_id, "name": name, "key": key, "description": None, "detector": _ENDED}


PROJECTS = ({"id": DEFAULT_PROJECT, "name": "默认项目"}, {"id": OTHER_PROJECT, "name": "海外商城"})

SEGMENTS: dict[str, tuple[dict[str, Any], ...]] = {
    DEFAULT_PROJECT: (
        _segment("qgQMXnD3", "seg_51activity", "zxm_用户_字符串_加密"),
        _segment("KzpNmzQk", "seg_vip", "高价值用户"),
        _segment("V0G5yvGA", "流失用户", "流失用户"),
    ),
    OTHER_PROJECT: (_segment("Hx4tLw9B", "seg_repeat", "复购用户"),),
}

_RFM = _tag("mgGJj3GA", "tag_rfm", "会员等级")
_CITY = _tag("Rn5vTy8c", "tag_last_city", "最近访问城市")
_OF_PROJECT = _tag("Zk8wQx2N", "tag_of_project", "项目级标签")
TAGS: dict[str, tuple[dict[str, Any], ...]] = {DEFAULT_PROJECT: (_RFM, _CITY, _OF_PROJECT), OTHER_PROJECT: (_RFM,)}
TAGS_OF_SPACES = {project: tuple(tag for tag in tags if tag is not _OF_PROJECT) for project, tags in TAGS.items()}
"""Version 4.x: a space has tags of its own, and the project has further ones beside them."""
ALL_TAGS = (_RFM, _CITY)

NAMES = {
    "id_$basic_userId": "用户ID",
    "ids_$basic_userId": "用户ID",
    "usr_gender": "性别",
    "tag_rfm": "会员等级",
}
"""Names of columns, for a header with names. The name of any other column is its key."""

USERS_IN_ALL = 1203
"""Number of users of each segment and tag in the paged listing: one full page and a rest."""


def user(number: int, columns: list[str]) -> dict[str, Any]:
    """Returns one user in the form of the paged listing."""
    identities = [column for column in columns if column.startswith("id")]
    return {
        "gioId": 600_000 + number,
        "identifications": {column: [f"C{number:05d}"] for column in identities},
        "properties": {column: f"值{number}" for column in columns if column not in identities},
    }
