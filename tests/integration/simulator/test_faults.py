"""Every scripted fault, as a client meets it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from hashlib import sha256
from typing import Any

import pytest
from aiohttp import ClientPayloadError, ServerDisconnectedError

from support.simulator_client import JOB_RESULT, SEGMENT, SUBMIT_SEGMENT, SimulatorClient

LISTING = "{ projects { id } }"

WHOLE_ANSWERS = [
    ("throttled", {"retry_after_s": 7}, 429, "slow down"),
    ("error5xx", {"status": 502}, 502, "simulated platform failure"),
    ("error5xx", {}, 503, "simulated platform failure"),
    ("unauthorized", {}, 401, "unauthorized"),
    ("missing", {}, 404, "no such file"),
    ("redirect", {"location": "http://elsewhere.invalid/x"}, 302, ""),
    ("error_page", {}, 200, "<html>"),
    ("error_page", {"body": "json"}, 200, "系统维护中"),
    ("malformed", {}, 200, '{"data": {"jobResult"'),
]


@pytest.fixture
async def simulator() -> AsyncIterator[SimulatorClient]:
    async with SimulatorClient.start() as client:
        yield client


async def call(simulator: SimulatorClient, on: str) -> tuple[int, str]:
    """One call of each type, as it answers now: status and text."""
    headers = {"Authorization": "Token sim-token"}
    match on:
        case "token":
            form = {"grant_type": "client_credentials", "client_id": "api", "client_secret": "sim-secret"}
            url = f"{simulator.url}/accounts/oauth/access_token"
            request = simulator.session.post(url, data={**form, "scope": "system"}, allow_redirects=False)
        case "download":
            (job,) = (job for job in simulator.world.jobs if job.job_id == simulator.job_id)
            request = simulator.session.get(
                simulator.download_url(job.files[0].uri), headers=headers, allow_redirects=False
            )
        case _:
            queries = {"list": LISTING, "poll": JOB_RESULT, "submit": SUBMIT_SEGMENT}
            body = {"query": queries[on], "variables": {"id": simulator.job_id, "segmentId": SEGMENT}}
            url = f"{simulator.url}/graphql"
            request = simulator.session.post(url, json=body, headers=headers, allow_redirects=False)
    async with request as response:
        return response.status, await response.text()


@pytest.fixture
async def with_job(simulator: SimulatorClient) -> SimulatorClient:
    await simulator.tell(stage_s=0)
    simulator.job_id = await simulator.submit_segment()
    return simulator


@pytest.mark.parametrize("on", ["submit", "poll", "download", "token", "list"])
@pytest.mark.parametrize("spoilt", WHOLE_ANSWERS)
async def test_an_answer_is_spoilt_once_and_right_again(
    with_job: SimulatorClient, on: str, spoilt: tuple[str, dict[str, Any], int, str]
) -> None:
    fault, options, status, text = spoilt
    await with_job.fault(on, fault, **options)
    answered_status, answered_text = await call(with_job, on)
    assert answered_status == status
    assert text in answered_text
    assert len(with_job.world.jobs) == 1
    assert (await call(with_job, on))[0] == 200
    assert await with_job.hits() == 1


@pytest.mark.parametrize("on", ["submit", "poll", "token", "list"])
async def test_a_call_is_cut_without_an_answer(with_job: SimulatorClient, on: str) -> None:
    await with_job.fault(on, "cut")
    with pytest.raises(ServerDisconnectedError):
        await call(with_job, on)
    assert len(with_job.world.jobs) == 1
    assert (await call(with_job, on))[0] == 200


@pytest.mark.parametrize("on", ["submit", "poll", "download", "token", "list"])
async def test_a_slow_answer_comes_late_and_right(with_job: SimulatorClient, on: str) -> None:
    await with_job.fault(on, "slow", delay_s=0.1)
    started_s = asyncio.get_running_loop().time()
    assert (await call(with_job, on))[0] == 200
    assert asyncio.get_running_loop().time() - started_s >= 0.1


async def test_throttling_and_redirects_say_where_and_when(with_job: SimulatorClient) -> None:
    await with_job.fault("poll", "throttled", retry_after_s=7)
    assert (await with_job.post(JOB_RESULT, id=with_job.job_id)).headers["Retry-After"] == "7"
    await with_job.fault("download", "redirect", location="http://elsewhere.invalid/x")
    async with with_job.download((await with_job.job())["uris"][0]) as response:
        assert response.headers["Location"] == "http://elsewhere.invalid/x"


@pytest.mark.parametrize(("on", "status"), [("submit", 200), ("poll", 200), ("list", 200), ("download", 400)])
async def test_an_echoed_secret_is_the_token(with_job: SimulatorClient, on: str, status: int) -> None:
    await with_job.fault(on, "echo_secret")
    answered_status, text = await call(with_job, on)
    assert answered_status == status
    assert "Token sim-token" in text


async def test_the_oauth_grant_echoes_its_form(with_job: SimulatorClient) -> None:
    await with_job.fault("token", "echo_secret", status=500)
    status, text = await call(with_job, "token")
    assert status == 500
    assert "sim-secret" in text


# GraphQL


async def test_a_submit_that_fails_makes_no_job_unless_it_took_effect(simulator: SimulatorClient) -> None:
    await simulator.fault("submit", "error5xx")
    await simulator.fault("submit", "error5xx", executed=True)
    await simulator.fault("submit", "graphql_errors", executed=True)
    made = []
    for _ in range(3):
        await simulator.post(SUBMIT_SEGMENT, segmentId=SEGMENT)
        made.append(len(simulator.world.jobs))
    assert made == [0, 1, 2]


@pytest.mark.parametrize("on", ["submit", "poll", "list"])
async def test_an_answer_is_wrapped_in_a_list(with_job: SimulatorClient, on: str) -> None:
    query, variables = {
        "submit": (SUBMIT_SEGMENT, {"segmentId": SEGMENT}),
        "poll": (JOB_RESULT, {"id": with_job.job_id}),
        "list": (LISTING, {}),
    }[on]
    await with_job.fault(on, "list_wrapped")
    (wrapped,) = await with_job.answer(query, **variables)
    assert wrapped["data"]
    assert (await with_job.data(query, **variables)).keys() == wrapped["data"].keys()


async def test_errors_come_without_data_or_beside_it(simulator: SimulatorClient) -> None:
    await simulator.fault("submit", "graphql_errors", message="nein")
    await simulator.fault("submit", "partial_errors", message="jein")
    answer = await simulator.answer(SUBMIT_SEGMENT, segmentId=SEGMENT)
    assert answer == {"data": None, "errors": [{"message": "nein"}]}
    answer = await simulator.answer(SUBMIT_SEGMENT, segmentId=SEGMENT)
    assert answer["data"]["submitSegmentUserExportJob"]["id"] == (await simulator.job())["id"]
    assert answer["errors"] == [{"message": "jein"}]


async def test_a_job_ends_in_error_after_a_while_at_a_look_or_at_submit(simulator: SimulatorClient) -> None:
    await simulator.tell(stage_s=0)
    await simulator.fault("submit", "error_stage", match=SEGMENT)
    job_id = await simulator.submit_segment()
    assert await simulator.look(job_id) == {"id": (await simulator.job())["short_id"], "stage": "ERROR", "uris": None}

    await simulator.tell(hold_stage="RUNNING")
    await simulator.fault("poll", "error_stage", match="AVpZBzpK")
    job_id = await simulator.submit_segment("AVpZBzpK")
    assert [(await simulator.look(job_id))["stage"] for _ in range(2)] == ["ERROR", "ERROR"]

    await simulator.fault("submit", "error_at_submit", match="KzpNmzQk")
    query = SUBMIT_SEGMENT.replace("stage }", "stage error { code message } }")
    job = (await simulator.data(query, segmentId="KzpNmzQk"))["submitSegmentUserExportJob"]
    assert (job["stage"], job["error"]["code"]) == ("ERROR", "EXPORT_FAILED")
    assert (await simulator.look(job["id"]))["stage"] == "ERROR"


async def test_a_job_can_be_done_at_submit_and_an_analysis_says_an_empty_error_then(simulator: SimulatorClient) -> None:
    await simulator.tell(stage_s=60)
    await simulator.fault("submit", "finish_at_submit")
    query = """mutation { submitAnalysisExportJob(
      projectId: "WlGk4Daj", id: "klGvyp7E", param: {analysisType: FUNNELS}) { id stage error { code message } } }"""
    job = (await simulator.data(query))["submitAnalysisExportJob"]
    assert (job["stage"], job["error"]) == ("FINISH", {"code": "", "message": None})
    assert (await simulator.look(job["id"]))["uris"] == ["/jobs-results/downloads/下载漏斗.csv"]


async def test_an_unknown_stage_comes_in_any_word_at_submit_and_while_the_job_runs(simulator: SimulatorClient) -> None:
    await simulator.tell(stage_s=0, hold_stage="RUNNING")
    await simulator.fault("submit", "unknown_stage", stage="IN_THE_MAIL")
    await simulator.fault("poll", "unknown_stage", stage="DREAMING", times=None)
    data = await simulator.data(SUBMIT_SEGMENT, segmentId=SEGMENT)
    job = data["submitSegmentUserExportJob"]
    assert job["stage"] == "IN_THE_MAIL"
    assert [(await simulator.look(job["id"]))["stage"] for _ in range(2)] == ["DREAMING", "DREAMING"]
    await simulator.tell(hold_stage=None)
    assert (await simulator.look(job["id"]))["stage"] == "FINISH"


async def test_uris_are_empty_at_first_or_for_ever(with_job: SimulatorClient) -> None:
    await with_job.fault("poll", "empty_uris", times=2)
    looks = [await with_job.look(with_job.job_id) for _ in range(3)]
    assert [look["stage"] for look in looks] == ["FINISH"] * 3
    assert [look["uris"] for look in looks[:2]] == [[], []]
    assert looks[2]["uris"]
    await with_job.fault("poll", "empty_uris", times=None)
    assert [(await with_job.look(with_job.job_id))["uris"] for _ in range(3)] == [[], [], []]


async def test_a_job_is_unknown_for_a_moment(with_job: SimulatorClient) -> None:
    await with_job.fault("poll", "null_job")
    assert await with_job.look(with_job.job_id) is None
    assert await with_job.look(with_job.job_id)


async def test_a_fault_strikes_the_export_that_it_names_and_no_other(simulator: SimulatorClient) -> None:
    await simulator.fault("submit", "graphql_errors", match="AVpZBzpK", times=None)
    await simulator.submit_segment("KzpNmzQk")
    assert (await simulator.answer(SUBMIT_SEGMENT, segmentId="AVpZBzpK"))["data"] is None


# Downloads


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_download_is_cut_by_a_broken_connection(with_job: SimulatorClient, framing: str) -> None:
    await with_job.tell(framing=framing)
    await with_job.fault("download", "cut", after_bytes=1000)
    with pytest.raises(ClientPayloadError):
        await call(with_job, "download")
    assert (await call(with_job, "download"))[0] == 200


async def test_a_download_without_framing_is_cut_by_a_reset(with_job: SimulatorClient) -> None:
    # By hand: aiohttp's client takes the reset of such a body for its end.
    await with_job.tell(framing="close")
    await with_job.fault("download", "cut", after_bytes=1000)
    url = with_job.download_url((await with_job.job())["uris"][0])
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(f"GET {url.raw_path_qs} HTTP/1.1\r\nHost: x\r\nAuthorization: sim-token\r\n\r\n".encode())
    assert b" 200 " in await reader.readline()
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()
    with pytest.raises(ConnectionResetError):
        await writer.wait_closed()


async def received_of_short(simulator: SimulatorClient) -> bytes:
    uri = (await simulator.job())["uris"][0]
    received = bytearray()
    async with simulator.download(uri) as response:
        async for piece in response.content.iter_any():
            received += piece
    return bytes(received)


@pytest.mark.parametrize("framing", ["chunked", "close"])
async def test_a_short_download_ends_without_an_error(with_job: SimulatorClient, framing: str) -> None:
    await with_job.tell(framing=framing)
    await with_job.fault("download", "short", after_bytes=1000)
    received = await received_of_short(with_job)
    assert len(received) == 1000
    assert (await call(with_job, "download"))[1].encode().startswith(received)


async def test_a_short_download_is_less_than_announced(with_job: SimulatorClient) -> None:
    await with_job.fault("download", "short")
    with pytest.raises(ClientPayloadError):
        await received_of_short(with_job)


@pytest.mark.parametrize("fault", ["cut", "short"])
async def test_a_download_can_end_before_its_first_byte_or_at_its_last(with_job: SimulatorClient, fault: str) -> None:
    length_bytes = (await with_job.job())["files"][0]["bytes"]
    await with_job.tell(framing="chunked")
    await with_job.fault("download", fault, after_bytes=0)
    await with_job.fault("download", fault, after_bytes=length_bytes * 2)
    for expected_bytes in (0, length_bytes):
        try:
            assert len(await received_of_short(with_job)) == expected_bytes
        except (ClientPayloadError, ServerDisconnectedError):
            assert fault == "cut"
    assert await with_job.hits() == 2


async def test_a_download_stalls_in_the_middle_and_goes_on(with_job: SimulatorClient) -> None:
    await with_job.fault("download", "slow", after_bytes=500, delay_s=0.1)
    received = await received_of_short(with_job)
    assert sha256(received).hexdigest() == (await with_job.job())["files"][0]["sha256"]


async def test_a_client_that_leaves_is_no_trouble(with_job: SimulatorClient) -> None:
    await with_job.tell(file_bytes=50_000_000)
    job_id = await with_job.submit_segment("AVpZBzpK")
    async with with_job.download((await with_job.look(job_id))["uris"][0]) as response:
        await response.content.readany()
        response.close()
    assert (await call(with_job, "list"))[0] == 200


# The flaky preset


async def stubborn(attempt: Callable[[], Awaitable[Any]]) -> tuple[Any, int]:
    """Try until it works; gives the result and how often it failed."""
    for failures in range(10):
        try:
            found = await attempt()
        except (ClientPayloadError, ServerDisconnectedError):
            continue
        if found is not None:
            return found, failures
    raise AssertionError("ten attempts have failed")


async def flaky_export(simulator: SimulatorClient, segment_id: str) -> list[int]:
    """Export a segment as a stubborn client does; gives the failures of each step."""

    async def submit() -> Any:
        response = await simulator.post(SUBMIT_SEGMENT, segmentId=segment_id)
        return (await response.json())["data"]["submitSegmentUserExportJob"]["id"] if response.status == 200 else None

    async def poll() -> Any:
        response = await simulator.post(JOB_RESULT, id=job_id)
        answer = await response.json() if response.status == 200 else {}
        return answer["data"]["jobResult"]["uris"] if isinstance(answer, dict) and answer else None

    async def download() -> bytes | None:
        async with simulator.download(uris[0]) as response:
            return await response.read() if response.content_type == "text/csv" else None

    job_id, submit_failures = await stubborn(submit)
    uris, poll_failures = await stubborn(poll)
    body, download_failures = await stubborn(download)
    told = next(job for job in await simulator.control("GET", "jobs") if job["id"] == job_id)
    assert sha256(body).hexdigest() == told["files"][0]["sha256"]
    return [submit_failures, poll_failures, download_failures]


async def test_under_the_flaky_preset_each_export_fails_alike_and_succeeds(simulator: SimulatorClient) -> None:
    await simulator.control("PUT", "scenario", {"flaky": True, "stage_s": 0})
    segments = ["AVpZBzpK", "KzpNmzQk", "V0G5yvGA", "qgQMXnD3", "3mpxywGO"]
    failures = await asyncio.gather(*(flaky_export(simulator, segment_id) for segment_id in segments))
    assert failures == [[1, 4, 2]] * len(segments)
    assert len(simulator.world.jobs) == len(segments)


# The control API


async def test_a_scenario_is_replaced_changed_and_told(simulator: SimulatorClient) -> None:
    assert (await simulator.control("PUT", "scenario", {"title": "a", "rows": 3}))["title"] == "a"
    told = await simulator.control("PATCH", "scenario", {"files": 2})
    assert (told["title"], told["rows"], told["files"]) == ("a", 3, 2)
    told = await simulator.control("PUT", "scenario", {"rows": 3})
    assert (told["title"], told["rows"], told["files"]) == (None, 3, 1)
    assert await simulator.control("GET", "scenario") == told


@pytest.mark.parametrize(
    ("method", "path", "body", "problem"),
    [
        ("PUT", "scenario", {"stage_s": -1}, "stage_s"),
        ("PUT", "scenario", [], "body"),
        ("PATCH", "scenario", {"framing": "smoke"}, "framing"),
        ("POST", "faults", {"on": "poll", "fault": "gremlins"}, "fault"),
        ("POST", "faults", [{"on": "poll"}], "fault"),
    ],
)
async def test_an_order_that_makes_no_sense_is_refused_with_the_field(
    simulator: SimulatorClient, method: str, path: str, body: Any, problem: str
) -> None:
    answer = await simulator.control(method, path, body, status=400)
    assert problem in answer["error"]


async def test_faults_come_several_at_once_and_go(simulator: SimulatorClient) -> None:
    faults = [{"on": "poll", "fault": "throttled"}, {"on": "list", "fault": "error5xx"}]
    added = await simulator.control("POST", "faults", faults)
    assert [(fault["fault"], fault["hits"]) for fault in added] == [("throttled", 0), ("error5xx", 0)]
    assert await simulator.control("DELETE", "faults") == []
    assert (await simulator.post(LISTING)).status == 200


async def test_a_reset_forgets_everything(with_job: SimulatorClient) -> None:
    await with_job.fault("list", "error5xx")
    await with_job.tell(rows=5)
    await with_job.control("DELETE", "state")
    assert await with_job.control("GET", "jobs") == []
    assert await with_job.control("GET", "faults") == []
    assert await with_job.control("GET", "requests") == {"total": 0, "requests": []}
    assert (await with_job.control("GET", "scenario"))["rows"] == 200
    assert await with_job.submit_segment() != with_job.job_id
