"""Fields of forms are filled from the catalogs of the platforms, as their simulators list them."""

from export_producers.console.request_form.forms import fields_of
from export_producers.console.request_form.picks import PICKS, pick_of, search
from export_worker.config import Config
from export_worker.contract.kind_names import PLATFORM_OF_KIND
from export_worker.credentials import Redactor
from export_worker.platforms.conformance import TOKEN, serve_simulator
from export_worker.wiring.catalog import list_resource

PROJECT = {"export.project_id": "WlGk4Daj"}
FOUND = {
    ("growingio.tag_users", "tag_key"): ({}, "笔数", "tag_payment_times"),
    ("growingio.tag_users", "tag_id"): ({}, "mggj", "mgGJj3GA"),
    ("growingio.segment_users", "project_id"): ({}, "默认", "WlGk4Daj"),
    ("growingio.segment_users", "segment_id"): (PROJECT, "qgqm", "qgQMXnD3"),
    ("growingio.segment_users", "segment_name"): (PROJECT, "群4", "分群4"),
    ("growingio.segment_users", "tags"): (PROJECT, "mgGJ", "mgGJj3GA"),
    ("growingio.analysis", "project_id"): ({}, "", "WlGk4Daj"),
    ("growingio.analysis", "analysis_id"): (PROJECT | {"export.analysis_type": "FUNNELS"}, "", "klGvyp7E"),
    ("growingio.segment_profile_users", "project_id"): ({}, "", "WlGk4Daj"),
    ("growingio.segment_profile_users", "segment_key"): (PROJECT, "高价值", "seg_vip"),
    ("growingio.user_tag_users", "project_id"): ({}, "", "WlGk4Daj"),
    ("growingio.user_tag_users", "tag_key"): ({}, "会员", "tag_rfm"),
    ("thinkingdata.cluster_users", "cluster_id"): (
        {"export.project_id": "102", "export.catalog": "tag"},
        "首次",
        "972",
    ),
    ("thinkingdata.cluster_users", "cluster_name"): ({"export.project_id": "102"}, "recent", "recent_7_days_consume"),
    ("sensorsdata.user_group_users", "group_id"): ({}, "", "42"),
    ("sensorsdata.segment_users", "segment_name"): ({}, "高价值", "user_segment_vip"),
    ("sensorsdata.tag_users", "tag_name"): ({}, "等级", "user_tag_level"),
}
"""The texts of a form, a part of a name, and the value of the item that has it."""


def test_every_field_with_a_catalog_is_a_field_of_its_kind_and_has_a_case() -> None:
    fields = {(kind, name) for kind, picks in PICKS.items() for name in picks}
    assert fields == set(FOUND)
    assert [each for each in fields if f"export.{each[1]}" not in {field.name for field in fields_of(each[0])}] == []


async def test_each_field_is_filled_from_the_catalog_of_its_platform() -> None:
    async with serve_simulator(lambda app: None) as simulator:
        settings = {"base_url": simulator.url, "token": TOKEN}
        connections = {name: {"platform": name, **settings} for name in PLATFORM_OF_KIND.values()}
        connections["sensorsdata"]["project"] = "default"
        connections["horizon"] = connections["sensorsdata"] | {"api": "horizon", "api_key": TOKEN}
        config = Config.model_validate({"connections": connections})
        for (kind, field), (texts, part, value) in FOUND.items():
            pick = pick_of(kind, f"export.{field}")
            assert pick is not None
            resource, project = pick.listed(texts), pick.listed_project(texts)
            assert resource is not None
            connection = "horizon" if field in {"segment_name", "tag_name"} and not project else PLATFORM_OF_KIND[kind]
            items = await list_resource(config, Redactor(), connection, resource, project)
            found = search(items, pick.column, part)
            assert value in {option.value for option in found.options}, (kind, field)
