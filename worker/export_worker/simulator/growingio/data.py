"""The data of the simulated GrowingIO: projects, tags, segments, analyses and users, with ids from its API guide."""

from dataclasses import dataclass
from typing import Any, Literal

AnalysisType = Literal["CHARTS", "FUNNELS", "RETENTIONS", "FREQUENCIES"]

DEFAULT_PROJECT = "WlGk4Daj"
OTHER_PROJECT = "pR7kD2mX"

_ADMIN_ID = "zqQRq3Do"
_CREATED_AT = "2021-01-25T09:01:38.440443Z"


def _entity(entity_id: str, name: str, **fields: Any) -> dict[str, Any]:
    return {
        "id": entity_id,
        "name": name,
        "description": None,
        "creatorId": _ADMIN_ID,
        "createdAt": _CREATED_AT,
        "updaterId": _ADMIN_ID,
        "updatedAt": _CREATED_AT,
        "creator": "admin",
        "updater": "admin",
        "ownerId": _ADMIN_ID,
        **fields,
    }


def _project(entity_id: str, name: str) -> dict[str, Any]:
    return _entity(entity_id, name, owner="admin", projectMemberCount=1)


def _detector(users: int) -> dict[str, Any]:
    return {"stage": "FINISH", "detectedAt": _CREATED_AT, "totalUsers": users, "usersRatio": 0.125}


def _tag(entity_id: str, key: str, name: str, value_type: str) -> dict[str, Any]:
    return _entity(
        entity_id,
        name,
        key=key,
        type="AGGREGATED",
        computes=[],
        valueType={"type": value_type, "unit": "COUNT", "isArray": False},
        detector=_detector(4096),
    )


def _segment(entity_id: str, name: str) -> dict[str, Any]:
    return _entity(
        entity_id,
        name,
        compute={"name": name, "expression": "A", "directives": []},
        scheduler="DAILY",
        createdBy="DIRECT",
        detector=_detector(1024),
    )


def _analysis(entity_id: str, name: str) -> dict[str, Any]:
    return _entity(
        entity_id,
        name,
        measurements=[{"id": "visit", "type": "simple", "name": "访问"}],
        metrics=[],
        timeRange="day:8,1",
        range="7d",
        chartType="line",
        isSystem=False,
    )


@dataclass(frozen=True, slots=True)
class ProjectData:
    """The data of one project. Each listing has the platform's order."""

    project: dict[str, Any]
    tags: tuple[dict[str, Any], ...]
    segments: tuple[dict[str, Any], ...]
    analyses: dict[AnalysisType, tuple[dict[str, Any], ...]]


TAGS = (
    _tag("mgGJj3GA", "tag_payment_times", "订单交易笔数", "INT"),
    _tag("b7Qk2WxL", "tag_payment_amount", "订单交易金额", "DOUBLE"),
    _tag("Rn5vTy8c", "tag_last_city", "最近访问城市", "STRING"),
    _tag("hJ3mZp0e", "tag_first_visit", "首次访问日期", "DATE"),
)

PROJECTS: dict[str, ProjectData] = {
    DEFAULT_PROJECT: ProjectData(
        project=_project(DEFAULT_PROJECT, "默认项目"),
        tags=TAGS,
        segments=(
            _segment("AVpZBzpK", "分群1"),
            _segment("KzpNmzQk", "分群2"),
            _segment("V0G5yvGA", "分群3"),
            _segment("qgQMXnD3", "分群4"),
            _segment("3mpxywGO", "分群n"),
        ),
        analyses={
            "CHARTS": (_analysis("eA1vNt01", "事件分析1"), _analysis("eA1vNt02", "事件分析2")),
            "FUNNELS": (
                _analysis("zqQR3po3", "漏斗1"),
                _analysis("wWDrwQML", "漏斗2"),
                _analysis("klGvyp7E", "漏斗3"),
                _analysis("y9pm1pme", "漏斗n"),
            ),
            "RETENTIONS": (_analysis("rT3nTn01", "留存1"), _analysis("rT3nTn02", "留存2")),
            "FREQUENCIES": (_analysis("fQ2cyX01", "分布1"), _analysis("fQ2cyX02", "分布2")),
        },
    ),
    OTHER_PROJECT: ProjectData(
        project=_project(OTHER_PROJECT, "海外商城"),
        tags=TAGS[:1],
        segments=(_segment("Hx4tLw9B", "复购用户"),),
        analyses={"CHARTS": (), "FUNNELS": (), "RETENTIONS": (), "FREQUENCIES": ()},
    ),
}

FILE_TITLES: dict[AnalysisType, str] = {
    "CHARTS": "下载事件分析",
    "FUNNELS": "下载漏斗",
    "RETENTIONS": "下载留存",
    "FREQUENCIES": "下载分布",
}
"""Base names of the files of analyses. GrowingIO's guide shows only the name for funnels; the others are assumed."""

USERS: dict[str, dict[str, tuple[str, str]]] = {
    "user-0001": {
        "usr_city": ("城市", "杭州"),
        "usr_level": ("会员等级", "金牌"),
        "tag_payment_times": ("订单交易笔数", "12"),
        "tag_payment_amount": ("订单交易金额", "3580.50"),
    },
    "user-0002": {"usr_city": ("城市", "成都"), "tag_payment_times": ("订单交易笔数", "1")},
}
"""The properties and tags of each user: key → name and value."""
