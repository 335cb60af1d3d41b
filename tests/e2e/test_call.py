"""The command `export-worker call`, against GrowingIO. `test_fifth_platform` tests bodies and deletions."""

import asyncio
import json

import pytest

from export_worker.demo.processes import free_port
from export_worker.simulator.scenario import Fault
from export_worker.simulator.world import World
from support import secret_canaries
from support.worker_site import CommandResult, Site

PROJECT = ("--param", "projectId=WlGk4Daj")


async def call(site: Site, *arguments: str, **environment: str) -> CommandResult:
    """Runs the command in a thread, since the simulator runs in the event loop of the test."""
    return await asyncio.to_thread(site.command, "call", *arguments, **environment)


def refusal(ran: CommandResult) -> dict[str, str]:
    """Returns the problems of a refused call: field → message."""
    assert ran.status == 2, ran
    assert "Traceback" not in ran.stderr
    return {problem["field"]: problem["message"] for problem in json.loads(ran.stdout)["error"]["fields"]}


async def test_list_shows_every_operation(site: Site) -> None:
    plain, listed = await call(site, "gio", "--list"), await call(site, "gio", "--list", "--json")

    operations = {operation["name"]: operation for operation in json.loads(listed.stdout)}
    assert len(operations) == 11
    profile = operations["userProfile"]
    assert (profile["method"], profile["path"], profile["aliases"]) == ("POST", "/graphql", ["user-profile"])
    assert [parameter["name"] for parameter in profile["parameters"]] == ["projectId", "userId", "tags", "properties"]
    assert profile["any_of"] == [["tags", "properties"]]
    for text in [*operations, "user-profile", "POST /graphql", "projectId*", "8 letters or digits", "at least one of"]:
        assert text in plain.stdout


async def test_response_is_printed_as_pretty_or_compact_json(site: Site) -> None:
    plain, compact = (
        await call(site, "gio", "segments", *PROJECT),
        await call(site, "gio", "segments", *PROJECT, "--json"),
    )

    assert json.loads(plain.stdout) == json.loads(compact.stdout)
    assert json.loads(plain.stdout)[0]["id"] == "AVpZBzpK"
    assert len(compact.stdout.splitlines()) == 1
    assert len(plain.stdout.splitlines()) > 10
    assert "分群" in compact.stdout


async def test_call_by_alias_with_repeated_parameter(site: Site) -> None:
    parameters = ("--param", "userId=user-0001", "--param", "properties=usr_city", "--param", "properties=usr_level")
    ran = await call(site, "gio", "user-profile", *PROJECT, *parameters, "--json")

    assert ran.status == 0, ran
    user = json.loads(ran.stdout)
    assert user["userId"] == "user-0001"
    assert [item["value"] for item in user["properties"]] == ["杭州", "金牌"]


async def test_call_for_unknown_user_prints_null(site: Site) -> None:
    ran = await call(
        site, "gio", "dataCenterUserProfile", "--param", "userId=unknown", "--param", "properties=x", "--json"
    )
    assert (ran.status, ran.stdout) == (0, "null\n")


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (("gio", "drop"), "operation"),
        (("unknown", "tags"), "connection"),
        (("gio", "tags"), "projectId"),
        (("gio", "tags", "--param", "projectId=short"), "projectId"),
        (("gio", "tags", *PROJECT, "--param", "page=1"), "page"),
        (("gio", "tags", *PROJECT, "--param", "page"), "param"),
        (("gio", "tags", *PROJECT, *PROJECT), "projectId"),
        (("gio", "tags", *PROJECT, "--body", "-"), "body"),
        (("gio", "userProfile", *PROJECT), "tags or properties"),
        (("gio", "userProfile", *PROJECT, "--param", "tags=x"), "tags"),
    ],
)
async def test_wrong_call_is_refused_before_any_request(
    site: Site, world: World, arguments: tuple[str, ...], field: str
) -> None:
    assert field in refusal(await call(site, *arguments, "--json"))
    assert world.requests_total == 0


@pytest.mark.parametrize("arguments", [("gio",), (), ("gio", "tags", "--list"), ("gio", "--list", "--param", "a=b")])
async def test_call_with_missing_or_extra_arguments_exits_2(site: Site, arguments: tuple[str, ...]) -> None:
    ran = await call(site, *arguments)
    assert ran.status == 2
    assert "Usage" in ran.stderr


async def test_call_that_platform_refuses_exits_2(site: Site) -> None:
    ran = await call(site, "gio", "tags", "--param", "projectId=Unkn0wn1", "--json")
    assert ran.status == 2
    assert json.loads(ran.stdout)["error"]["code"] == "platform_refused"


async def test_call_to_unreachable_platform_exits_4(site: Site) -> None:
    unreachable = f"http://127.0.0.1:{free_port()}"
    ran = await call(site, "gio", "tags", *PROJECT, EXPORT_CONNECTIONS__GIO__BASE_URL=unreachable)
    assert ran.status == 4
    assert "Traceback" not in ran.stderr


async def test_credential_in_error_response_is_masked(site: Site, world: World) -> None:
    world.faults.add(Fault(on="list", fault="echo_secret"))
    ran = await call(site, "gio", "tags", *PROJECT, "--json")
    assert ran.status == 2
    assert "***" in ran.stdout
    assert secret_canaries.TOKEN not in ran.stdout + ran.stderr
