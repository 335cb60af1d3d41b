"""The simulated GrowingIO over HTTP: schema, credentials, listings and jobs."""

import re
from base64 import b64decode
from collections.abc import AsyncIterator
from typing import Any

import pytest
from graphql import build_schema, lexicographic_sort_schema, parse, print_ast
from graphql.language import DocumentNode
from graphql.utilities import print_schema, strip_ignored_characters

from export_worker.simulator.growingio.schema import SDL
from export_worker.simulator.scenario import Scenario
from export_worker.simulator.world import SimulatorSettings
from support.paths import DATA
from support.simulator_client import JOB_RESULT, PROJECT, SEGMENT, SUBMIT_SEGMENT, SimulatorClient

PUBLISHED_SCHEMA = DATA / "platforms" / "growingio.graphql"


@pytest.fixture
async def simulator() -> AsyncIterator[SimulatorClient]:
    async with SimulatorClient.start() as client:
        yield client


def without_descriptions(sdl: str) -> str:
    text = print_schema(lexicographic_sort_schema(build_schema(sdl)))
    return strip_ignored_characters(re.sub(r'"""(?s:.*?)"""', "", text))


def test_schema_equals_the_published_one() -> None:
    assert without_descriptions(SDL) == without_descriptions(PUBLISHED_SCHEMA.read_text(encoding="utf-8"))


def test_schema_is_valid_and_normalised() -> None:
    document: DocumentNode = parse(SDL)
    assert print_ast(document).strip() == SDL.strip()


# Credentials


@pytest.mark.parametrize("authorization", ["Token sim-token", "Bearer sim-token", "sim-token"])
async def test_token_is_accepted_in_every_usual_form(simulator: SimulatorClient, authorization: str | None) -> None:
    simulator.authorization = authorization
    assert await simulator.data("{ projects { id } }")


@pytest.mark.parametrize("authorization", [None, "Token other", "Basic sim-token"])
async def test_wrong_token_is_answered_with_401(simulator: SimulatorClient, authorization: str | None) -> None:
    simulator.authorization = authorization
    assert (await simulator.post("{ projects { id } }")).status == 401
    async with simulator.download("/jobs/results/a/b.csv") as response:
        assert response.status == 401


async def request_token(simulator: SimulatorClient, **changed: str) -> tuple[int, Any]:
    form = {
        "grant_type": "client_credentials",
        "client_id": "api",
        "client_secret": "sim-secret",
        "scope": "system",
        **changed,
    }
    url = f"{simulator.url}/accounts/oauth/access_token"
    async with simulator.session.post(url, data=form) as response:
        return response.status, await response.json()


async def test_oauth_grant_returns_a_token_that_can_be_revoked(simulator: SimulatorClient) -> None:
    status, answer = await request_token(simulator)
    assert (status, answer["expires_in"]) == (200, 7200)
    simulator.authorization = f"Token {answer['access_token']}"
    assert await simulator.data("{ projects { id } }")
    assert await simulator.control("POST", "tokens/revoke") == {"grants": 1}
    assert (await simulator.post("{ projects { id } }")).status == 401
    assert (await request_token(simulator))[1]["access_token"] != answer["access_token"]
    assert await simulator.control("GET", "tokens") == {"grants": 2}


async def test_oauth_token_expires_after_its_ttl(simulator: SimulatorClient) -> None:
    await simulator.set_scenario(token_ttl_s=0.001)
    simulator.authorization = (await request_token(simulator))[1]["access_token"]
    while (await simulator.post("{ projects { id } }")).status == 200:
        pass
    assert (await simulator.post("{ projects { id } }")).status == 401


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"client_secret": "other"}, 401),
        ({"grant_type": "password"}, 400),
        ({"client_id": "me"}, 400),
        ({"scope": "all"}, 400),
    ],
)
async def test_oauth_grant_with_wrong_field_is_refused(
    simulator: SimulatorClient, changed: dict[str, str], status: int
) -> None:
    assert (await request_token(simulator, **changed))[0] == status


# Requests


@pytest.mark.parametrize(
    "body",
    [
        b"no json",
        b"[]",
        b"{}",
        b'{"query": 1}',
        b'{"query": "{a}", "variables": 1}',
        b'{"query": "{a}", "operationName": 1}',
    ],
)
async def test_invalid_graphql_body_is_answered_with_400(simulator: SimulatorClient, body: Any) -> None:
    headers = {"Authorization": "Token sim-token", "Content-Type": "application/json"}
    async with simulator.session.post(f"{simulator.url}/graphql", data=body, headers=headers) as response:
        assert response.status == 400
        assert (await response.json())["errors"]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("{ projects { id", "Syntax Error"),
        ("{ projects { nonsense } }", "nonsense"),
        ('{ jobResult(id: "x") { id stage error } }', "error"),
        ('{ tags(projectId: "short") { id } }', "HashId must be 8 letters or digits"),
        ("query A { projects { id } } query B { projects { id } }", "which operation"),
        ("subscription { projects { id } }", "subscription"),
    ],
)
async def test_invalid_query_is_answered_with_errors_and_status_200(
    simulator: SimulatorClient, query: str, message: str
) -> None:
    answer = await simulator.answer(query)
    assert answer["data"] is None
    assert message in answer["errors"][0]["message"]


@pytest.mark.parametrize("segment_id", ["short", "ninechars", "with-das", 12345678, None])
async def test_variable_that_is_not_a_hash_id_is_refused_and_creates_no_job(
    simulator: SimulatorClient, segment_id: Any
) -> None:
    answer = await simulator.answer(SUBMIT_SEGMENT, segmentId=segment_id)
    assert answer["data"] is None
    assert answer["errors"]
    assert await simulator.control("GET", "jobs") == []


async def test_requests_are_recorded_without_header_values(simulator: SimulatorClient) -> None:
    await simulator.poll("unknown")
    simulator.authorization = "Token canary"
    await simulator.post("{ projects { id } }")
    recorded = await simulator.control("GET", "requests")
    assert recorded["total"] == 2
    first, second = recorded["requests"]
    assert (first["method"], first["target"], first["status"]) == ("POST", "/graphql", 200)
    assert first["body"]["variables"] == {"id": "unknown"}
    assert "Authorization" in first["headers"]
    assert (first["authorized"], second["authorized"], second["status"]) == (True, False, 401)
    assert "canary" not in str(recorded)


async def test_number_of_recorded_requests_is_limited() -> None:
    async with SimulatorClient.start(SimulatorSettings(requests_max=2)) as simulator:
        for _ in range(3):
            await simulator.poll("unknown")
        recorded = await simulator.control("GET", "requests")
    assert (recorded["total"], len(recorded["requests"])) == (3, 2)


# Listings


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("projects", ["WlGk4Daj"]),
        ("dataCenterTags", ["mgGJj3GA"]),
        ("tags", ["mgGJj3GA"]),
        ("segments", ["AVpZBzpK", "KzpNmzQk", "V0G5yvGA", "qgQMXnD3", "3mpxywGO"]),
        ("funnelAnalyses", ["zqQR3po3", "wWDrwQML", "klGvyp7E", "y9pm1pme"]),
        ("eventAnalyses", ["eA1vNt01"]),
        ("retentionAnalyses", ["rT3nTn01"]),
        ("frequencyAnalyses", ["fQ2cyX01"]),
    ],
)
async def test_listing_returns_the_known_ids(simulator: SimulatorClient, query: str, ids: list[str]) -> None:
    arguments = "" if query in {"projects", "dataCenterTags"} else f'(projectId: "{PROJECT}")'
    listed = (await simulator.data(f"{{ {query}{arguments} {{ id name creatorId createdAt creator }} }}"))[query]
    assert [item["id"] for item in listed][: len(ids)] == ids
    assert all(item["name"] and item["creator"] == "admin" for item in listed)


async def test_listing_returns_the_fields_of_each_type(simulator: SimulatorClient) -> None:
    data = await simulator.data(
        """{
          projects { ownerId projectMemberCount }
          tags(projectId: "WlGk4Daj") { key type computes { name } valueType { type } detector { stage totalUsers } }
          segments(projectId: "WlGk4Daj") { scheduler compute { expression directives { op } } ownerId createdBy }
          eventAnalyses(projectId: "WlGk4Daj") { timeRange metrics { id } measurements { id type } }
          retentionAnalyses(projectId: "WlGk4Daj") { range timeRange chartType measurements { id } }
          frequencyAnalyses(projectId: "WlGk4Daj") { timeRange measurements { id } }
          funnelAnalyses(projectId: "WlGk4Daj") { measurements { id } isSystem }
        }"""
    )
    assert data["tags"][0] == {
        "key": "tag_payment_times",
        "type": "AGGREGATED",
        "computes": [],
        "valueType": {"type": "INT"},
        "detector": {"stage": "FINISH", "totalUsers": 4096},
    }


async def test_single_object_is_found_by_its_id(simulator: SimulatorClient) -> None:
    data = await simulator.data(
        """{
          project(id: "WlGk4Daj") { name }
          tag(projectId: "WlGk4Daj", id: "mgGJj3GA") { key name }
          dataCenterTag(id: "mgGJj3GA") { key }
          segment(projectId: "WlGk4Daj", id: "qgQMXnD3") { name }
        }"""
    )
    assert data == {
        "project": {"name": "默认项目"},
        "tag": {"key": "tag_payment_times", "name": "订单交易笔数"},
        "dataCenterTag": {"key": "tag_payment_times"},
        "segment": {"name": "分群4"},
    }


@pytest.mark.parametrize(
    "query",
    [
        '{ project(id: "Unknown8") { id } }',
        '{ tags(projectId: "Unknown8") { id } }',
        '{ segments(projectId: "Unknown8") { id } }',
        '{ funnelAnalyses(projectId: "Unknown8") { id } }',
        '{ tag(projectId: "WlGk4Daj", id: "Unknown8") { id } }',
        '{ dataCenterTag(id: "Unknown8") { id } }',
        '{ segment(projectId: "pR7kD2mX", id: "qgQMXnD3") { id } }',
        '{ userProfile(projectId: "Unknown8", userId: "user-0001", properties: ["usr_city"]) { id } }',
        '{ userProfile(projectId: "WlGk4Daj", userId: "user-0001") { id } }',
    ],
)
async def test_query_for_unknown_object_or_without_required_field_is_an_error(
    simulator: SimulatorClient, query: str
) -> None:
    answer = await simulator.answer(query)
    assert list(answer["data"].values()) == [None]
    assert answer["errors"][0]["path"]


async def test_user_profile_returns_requested_properties_and_tags(simulator: SimulatorClient) -> None:
    query = """query ($user: String!) {
      userProfile(projectId: "WlGk4Daj", userId: $user, properties: ["usr_city", "usr_none"], tags: ["mgGJj3GA"]) {
        userId properties { key name value } }
      dataCenterUserProfile(userId: $user, properties: ["usr_city"]) { properties { value } }
    }"""
    data = await simulator.data(query, user="user-0001")
    assert [item["key"] for item in data["userProfile"]["properties"]] == ["usr_city", "tag_payment_times"]
    assert data["dataCenterUserProfile"] == {"properties": [{"value": "杭州"}]}
    assert await simulator.data(query, user="unknown-user") == {"userProfile": None, "dataCenterUserProfile": None}


# Jobs

SUBMITS = {
    "submitTagUserExportJob": '(tagId: "mgGJj3GA", charset: "UTF-16LE", detailExport: false)',
    "submitTagUserExportJobByKey": '(parameter: {tagKey: "tag_payment_times", properties: ["usr_city"]})',
    "submitSegmentUserExportJob": f'(projectId: "{PROJECT}", segmentId: "{SEGMENT}", tags: ["mgGJj3GA"])',
    "submitSegmentUserExportJobV2": (
        f'(projectId: "{PROJECT}", parameter: {{id: "{SEGMENT}", segmentType: NORMAL, exportFileName: "名单"}})'
    ),
    "submitSegmentSnapshotUserExportJob": f'(projectId: "{PROJECT}", id: "{SEGMENT}")',
}
ANALYSES = {"CHARTS": "eA1vNt01", "FUNNELS": "klGvyp7E", "RETENTIONS": "rT3nTn01", "FREQUENCIES": "fQ2cyX01"}

PATHS = {
    "submitTagUserExportJob": r"/jobs/results/DET-\d{12}-\d+/[0-9a-f-]{36}\.csv",
    "submitTagUserExportJobByKey": r"/jobs/results/DET-\d{12}-\d+/[0-9a-f-]{36}\.csv",
    "submitSegmentUserExportJob": r"/jobs/results/DES-\d{12}-\d+/下载用户列表\.csv",
    "submitSegmentUserExportJobV2": r"/jobs/results/DES-\d{12}-\d+/名单\.csv",
    "submitSegmentSnapshotUserExportJob": r"/jobs/results/DES-\d{12}-\d+/下载用户列表\.csv",
}


def decoded(job_id: str) -> str:
    assert "=" not in job_id
    return b64decode(job_id + "=" * (-len(job_id) % 4)).decode()


@pytest.mark.parametrize("mutation", SUBMITS)
async def test_submit_of_users_creates_a_job_that_ends_with_one_file(simulator: SimulatorClient, mutation: str) -> None:
    await simulator.set_scenario(stage_s=0)
    fields = "id name description stage creatorId createdAt updaterId updatedAt creator updater error { code message }"
    job = (await simulator.data(f"mutation {{ {mutation}{SUBMITS[mutation]} {{ {fields} }} }}"))[mutation]
    kind, prefix = ("Tag", "DET") if "Tag" in mutation else ("Segment", "DES")
    assert (job["stage"], job["error"], job["creator"]) == ("NONE", None, "admin")
    assert re.fullmatch(rf"{prefix}-\d{{12}}-\d+", job["name"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", job["createdAt"])
    short_id = decoded(job["id"]).removeprefix(f"{kind}UserExportJobDto:")
    assert re.fullmatch(r"[A-Za-z0-9]{8}", short_id)
    result = await simulator.poll(job["id"])
    assert (result["id"], result["stage"], len(result["uris"])) == (short_id, "FINISH", 1)
    assert re.fullmatch(PATHS[mutation], result["uris"][0])
    assert job["name"] in result["uris"][0]


@pytest.mark.parametrize("analysis_type", ANALYSES)
async def test_submit_of_each_analysis_type_creates_a_job_with_a_file(
    simulator: SimulatorClient, analysis_type: str
) -> None:
    await simulator.set_scenario(stage_s=0)
    query = """mutation ($id: HashId!, $param: AnalysisExportJobParam!) {
      submitAnalysisExportJob(projectId: "WlGk4Daj", id: $id, param: $param, charset: "UTF-16LE") {
        id stage error { code } } }"""
    data = await simulator.data(query, id=ANALYSES[analysis_type], param={"analysisType": analysis_type})
    job = data["submitAnalysisExportJob"]
    assert (job["stage"], job["error"]) == ("NONE", None)
    assert re.fullmatch(r"CHARTS:[0-9a-f]{32}", decoded(job["id"]))
    result = await simulator.poll(job["id"])
    assert result["uris"][0].startswith("/jobs-results/downloads/下载")
    assert result["id"] not in decoded(job["id"])
    assert (await simulator.job())["charset"] == "UTF-16LE"


@pytest.mark.parametrize(
    ("mutation", "arguments"),
    [
        ("submitTagUserExportJob", '(tagId: "Unknown8")'),
        ("submitTagUserExportJobByKey", '(parameter: {tagKey: "tag_unknown"})'),
        ("submitSegmentUserExportJob", f'(projectId: "{PROJECT}", segmentId: "Unknown8")'),
        ("submitSegmentUserExportJob", f'(projectId: "Unknown8", segmentId: "{SEGMENT}")'),
        ("submitSegmentUserExportJob", f'(projectId: "{PROJECT}", segmentId: "{SEGMENT}", charset: "rot13")'),
        ("submitAnalysisExportJob", f'(projectId: "{PROJECT}", id: "klGvyp7E", param: {{analysisType: CHARTS}})'),
    ],
)
async def test_submit_for_unknown_object_or_charset_is_an_error_and_creates_no_job(
    simulator: SimulatorClient, mutation: str, arguments: str
) -> None:
    answer = await simulator.answer(f"mutation {{ {mutation}{arguments} {{ id }} }}")
    assert answer["data"] is None
    assert answer["errors"][0]["path"] == [mutation]
    assert await simulator.control("GET", "jobs") == []


async def test_job_is_not_found_by_its_short_id_or_a_padded_id(simulator: SimulatorClient) -> None:
    job_id = await simulator.submit_segment()
    short_id = (await simulator.poll(job_id))["id"]
    assert await simulator.poll(short_id) is None
    assert await simulator.poll(job_id + "=") is None


async def test_job_passes_its_stages_and_has_no_uris_before_finish(simulator: SimulatorClient) -> None:
    await simulator.set_scenario(stage_s=0, hold_stage="NONE")
    job_id = await simulator.submit_segment()
    for stage in ("NONE", "READY", "RUNNING", "DATA_READY"):
        await simulator.set_scenario(hold_stage=stage)
        result = await simulator.poll(job_id)
        assert (result["stage"], result["uris"]) == (stage, None)
    await simulator.set_scenario(hold_stage=None)
    assert (await simulator.poll(job_id))["stage"] == "FINISH"


async def test_stages_follow_the_clock_in_order() -> None:
    async with SimulatorClient.start(SimulatorSettings(scenario=Scenario(stage_s=0.02))) as simulator:
        job_id = await simulator.submit_segment()
        seen: list[str] = []
        while seen[-1:] != ["FINISH"]:
            seen.append((await simulator.poll(job_id))["stage"])
    order = ["NONE", "READY", "RUNNING", "DATA_READY", "FINISH"]
    assert seen == sorted(seen, key=order.index)


async def test_control_api_lists_jobs_with_arguments_counts_and_files(simulator: SimulatorClient) -> None:
    await simulator.set_scenario(stage_s=0, files=2, title="a")
    job_id = await simulator.submit_segment(charset="UTF-16LE")
    await simulator.submit_segment(charset="UTF-16LE")
    await simulator.submit_segment()
    await simulator.poll(job_id)
    job = await simulator.job(0)
    assert (job["id"], job["kind"], job["polls"], job["submits"]) == (job_id, "segment", 1, 2)
    assert job["arguments"] == {"projectId": PROJECT, "segmentId": SEGMENT, "charset": "UTF-16LE"}
    assert [file["uri"] for file in job["files"]] == job["uris"]
    assert [uri.rpartition("/")[2] for uri in job["uris"]] == ["a.csv", "a(1).csv"]
    assert job["files"][0]["sha256"] != job["files"][1]["sha256"]


async def test_poll_through_alias_and_fragment_is_counted_and_has_its_fault(simulator: SimulatorClient) -> None:
    await simulator.add_fault("poll", "unknown_stage", stage="DREAMING")
    job_id = await simulator.submit_segment()
    query = """query ($id: String!) { ...Root }
      fragment Root on Query { ... on Query { r: jobResult(id: $id) { s: stage } } }"""
    assert (await simulator.data(query, id=job_id)) == {"r": {"s": "DREAMING"}}
    assert (await simulator.job())["polls"] == 1


async def test_missing_variable_is_a_graphql_error(simulator: SimulatorClient) -> None:
    answer = await simulator.answer(JOB_RESULT)
    assert "id" in answer["errors"][0]["message"]
