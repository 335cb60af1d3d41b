"""The simulated GrowingIO REST API over HTTP, without the driver."""

import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote, unquote

import pytest
from yarl import URL

from support.simulator_client import SimulatorClient

API = "/v1/api"
PROJECT = f"{API}/projects/WlGk4Daj"
EXPORT = f"{PROJECT}/segment_profiles/seg_51activity/export_jobs"


@pytest.fixture
async def simulator() -> AsyncIterator[SimulatorClient]:
    async with SimulatorClient.start() as client:
        client.authorization = "Bearer sim-token"
        await client.set_scenario(stage_s=0)
        yield client


async def send(simulator: SimulatorClient, method: str, target: str, body: Any = None) -> tuple[int, str]:
    headers = {} if simulator.authorization is None else {"Authorization": simulator.authorization}
    url = URL(simulator.url + target, encoded=True)
    async with simulator.session.request(method, url, json=body, headers=headers) as response:
        return response.status, await response.text()


async def answer(simulator: SimulatorClient, method: str, target: str, body: Any = None) -> Any:
    status, text = await send(simulator, method, target, body)
    assert status == 200, text
    return json.loads(text)


async def exported_uri(simulator: SimulatorClient, **body: Any) -> str:
    job = await answer(simulator, "POST", EXPORT, body)
    assert len(job["id"]) == 8
    assert job["name"].startswith("DES-")
    result = await answer(simulator, "GET", f"{API}/job/result/{job['id']}")
    assert set(result) == {"stage", "uris"}
    return str(result["uris"][0])


async def test_export_of_a_segment_returns_a_quoted_csv_file(simulator: SimulatorClient) -> None:
    uri = await exported_uri(simulator, properties=["usr_gender"], csvHeaderType="name")
    assert uri.startswith("%2Fjobs%2Fresults%2FDES-")
    assert unquote(uri).rpartition("/")[2].startswith("zxm_用户_字符串_加密_")
    status, text = await send(simulator, "GET", f"/download?file={uri}")
    assert status == 200
    assert text.startswith('"gio_id","性别"\n"')


@pytest.mark.parametrize(
    "change",
    [
        unquote,
        lambda uri: quote(unquote(uri), safe="/"),
        lambda uri: quote(uri, safe=""),
        lambda uri: uri.replace("%2F", "%2f"),
        lambda uri: uri.replace("%20", "+"),
    ],
    ids=["decoded", "slashes-decoded", "encoded-twice", "lower-case", "plus"],
)
async def test_download_is_found_only_by_the_unchanged_uri_of_the_result(
    simulator: SimulatorClient, change: Any
) -> None:
    await simulator.set_scenario(title="a b")
    uri = await exported_uri(simulator)
    assert (await send(simulator, "GET", f"/download?file={uri}"))[0] == 200
    status, _ = await send(simulator, "GET", f"/download?file={change(uri).replace(' ', '%20')}")
    assert status in {400, 404}


@pytest.mark.parametrize("authorization", [None, "sim-token", "Token sim-token", "Bearer wrong"])
async def test_every_authorization_except_a_valid_bearer_token_is_answered_with_401(
    simulator: SimulatorClient, authorization: str | None
) -> None:
    simulator.authorization = authorization
    for method, target in [("POST", EXPORT), ("GET", f"{API}/projects"), ("GET", f"{API}/job/result/x")]:
        assert (await send(simulator, method, target, {}))[0] == 401


@pytest.mark.parametrize(
    ("target", "body"),
    [
        (f"{PROJECT}/segment_profiles/seg_undefine/export_jobs", {}),
        (f"{API}/projects/unknown/segment_profiles/seg_51activity/export_jobs", {}),
        (EXPORT, {"properties": ["p"] * 61}),
        (EXPORT, {"properties": "p"}),
        (EXPORT, {"fileFormat": "xlsx"}),
        (EXPORT, {"csvHeaderType": "id"}),
        (EXPORT, {"charset": "UTF-8"}),
        (EXPORT, []),
    ],
)
async def test_invalid_submit_is_answered_with_plain_text_and_creates_no_job(
    simulator: SimulatorClient, target: str, body: Any
) -> None:
    assert await send(simulator, "POST", target, body) == (500, "Internal Server Error")
    assert await simulator.control("GET", "jobs") == []


async def test_job_result_is_found_only_in_its_own_project(simulator: SimulatorClient) -> None:
    job = await answer(simulator, "POST", EXPORT, {})
    assert (await answer(simulator, "GET", f"{PROJECT}/job/result/{job['id']}"))["stage"] == "FINISH"
    other = await send(simulator, "GET", f"{API}/projects/pR7kD2mX/job/result/{job['id']}")
    assert other == (500, "Internal Server Error")
    assert (await send(simulator, "GET", f"{API}/job/result/unknown"))[0] == 500


async def test_listings_are_paged_and_too_large_limit_is_an_error(simulator: SimulatorClient) -> None:
    assert [item["id"] for item in await answer(simulator, "GET", f"{API}/projects")] == ["WlGk4Daj", "pR7kD2mX"]
    first = await answer(simulator, "GET", f"{PROJECT}/segment_profiles?limit=2")
    rest = await answer(simulator, "GET", f"{PROJECT}/segment_profiles?limit=2&offset=2")
    assert [item["key"] for item in first["values"] + rest["values"]] == ["seg_51activity", "seg_vip", "流失用户"]
    assert (first["hasNextPage"], rest["hasNextPage"], rest["hasPreviousPage"]) == (True, False, True)
    assert (await send(simulator, "GET", f"{PROJECT}/segment_profiles?limit=1001"))[0] == 500
    assert [tag["key"] for tag in (await answer(simulator, "GET", f"{API}/user_tags"))["values"]] == [
        "tag_rfm",
        "tag_last_city",
    ]


async def test_users_are_paged_and_compute_requires_a_known_key(simulator: SimulatorClient) -> None:
    users = f"{API}/user_tags/tag_rfm/users"
    page = await answer(simulator, "GET", f"{users}?limit=1&offset=1202&properties[]=ids_x&properties[]=usr_gender")
    assert page["hasNextPage"] is False
    assert page["values"] == [
        {"gioId": 601202, "identifications": {"ids_x": ["C01202"]}, "properties": {"usr_gender": "值1202"}}
    ]
    many = "&".join(["properties[]=p"] * 21)
    assert (await send(simulator, "GET", f"{users}?{many}"))[0] == 500
    assert (await answer(simulator, "POST", f"{PROJECT}/user_tags/tag_rfm/computes"))["value"] is True
    assert (await send(simulator, "POST", f"{PROJECT}/user_tags/unknown/computes"))[0] == 500


async def test_executed_submit_with_lost_answer_creates_a_job(simulator: SimulatorClient) -> None:
    await simulator.add_fault("submit", "plain_text", executed=True)
    assert await send(simulator, "POST", EXPORT, {}) == (200, "Internal Server Error")
    assert (await simulator.job())["arguments"] == {"project": "WlGk4Daj", "key": "seg_51activity"}
