"""The effect of every scripted fault on a client, the flaky preset, and the control API."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from hashlib import sha256
from typing import Any

import pytest
from aiohttp import ClientPayloadError, ServerDisconnectedError

from support.simulator_client import JOB_RESULT, SEGMENT, SUBMIT_SEGMENT, SimulatorClient

LISTING = "{ projects { id } }"

REPLACED_ANSWERS = [
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
    """Makes a call of a type, and returns the status and text of the answer."""
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
    await simulator.set_scenario(stage_s=0)
    simulator.job_id = await simulator.submit_segment()
    return simulator


@pytest.mark.parametrize("on", ["submit", "poll", "download", "token", "list"])
@pytest.mark.parametrize("replaced", REPLACED_ANSWERS)
async def test_fault_replaces_one_answer_and_the_next_is_correct(
    with_job: SimulatorClient, on: str, replaced: tuple[str, dict[str, Any], int, str]
) -> None:
    fault, options, status, text = replaced
    await with_job.add_fault(on, fault, **options)
    answered_status, answered_text = await call(with_job, on)
    assert answered_status == status
    assert text in answered_text
    assert len(with_job.world.jobs) == 1
    assert (await call(with_job, on))[0] == 200
    assert await with_job.hits() == 1


@pytest.mark.parametrize("on", ["submit", "poll", "token", "list"])
async def test_cut_closes_the_connection_without_an_answer(with_job: SimulatorClient, on: str) -> None:
    await with_job.add_fault(on, "cut")
    with pytest.raises(ServerDisconnectedError):
        await call(with_job, on)
    assert len(with_job.world.jobs) == 1
    assert (await call(with_job, on))[0] == 200


@pytest.mark.parametrize("on", ["submit", "poll", "download", "token", "list"])
async def test_slow_delays_a_correct_answer(with_job: SimulatorClient, on: str) -> None:
    await with_job.add_fault(on, "slow", delay_s=0.1)
    started_s = asyncio.get_running_loop().time()
    assert (await call(with_job, on))[0] == 200
    assert asyncio.get_running_loop().time() - started_s >= 0.1


async def test_throttled_has_retry_after_and_redirect_has_location(with_job: SimulatorClient) -> None:
    await with_job.add_fault("poll", "throttled", retry_after_s=7)
    assert (await with_job.post(JOB_RESULT, id=with_job.job_id)).headers["Retry-After"] == "7"
    await with_job.add_fault("download", "redirect", location="http://elsewhere.invalid/x")
    async with with_job.download((await with_job.job())["uris"][0]) as response:
        assert response.headers["Location"] == "http://elsewhere.invalid/x"


@pytest.mark.parametrize(("on", "status"), [("submit", 200), ("poll", 200), ("list", 200), ("download", 400)])
async def test_echo_secret_returns_the_token(with_job: SimulatorClient, on: str, status: int) -> None:
    await with_job.add_fault(on, "echo_secret")
    answered_status, text = await call(with_job, on)
    assert answered_status == status
    assert "Token sim-token" in text


async def test_echo_secret_of_oauth_grant_returns_the_client_secret(with_job: SimulatorClient) -> None:
    await with_job.add_fault("token", "echo_secret", status=500)
    status, text = await call(with_job, "token")
    assert status == 500
    assert "sim-secret" in text


# GraphQL


async def test_failed_submit_creates_a_job_only_if_executed(simulator: SimulatorClient) -> None:
    await simulator.add_fault("submit", "error5xx")
    await simulator.add_fault("submit", "error5xx", executed=True)
    await simulator.add_fault("submit", "graphql_errors", executed=True)
    job_counts = []
    for _ in range(3):
        await simulator.post(SUBMIT_SEGMENT, segmentId=SEGMENT)
        job_counts.append(len(simulator.world.jobs))
    assert job_counts == [0, 1, 2]


@pytest.mark.parametrize("on", ["submit", "poll", "list"])
async def test_list_wrapped_returns_the_answer_in_a_list(with_job: SimulatorClient, on: str) -> None:
    query, variables = {
        "submit": (SUBMIT_SEGMENT, {"segmentId": SEGMENT}),
        "poll": (JOB_RESULT, {"id": with_job.job_id}),
        "list": (LISTING, {}),
    }[on]
    await with_job.add_fault(on, "list_wrapped")
    (wrapped,) = await with_job.answer(query, **variables)
    assert wrapped["data"]
    assert (await with_job.data(query, **variables)).keys() == wrapped["data"].keys()


async def test_graphql_errors_have_no_data_and_partial_errors_have_data(simulator: SimulatorClient) -> None:
    await simulator.add_fault("submit", "graphql_errors", message="nein")
    await simulator.add_fault("submit", "partial_errors", message="jein")
    answer = await simulator.answer(SUBMIT_SEGMENT, segmentId=SEGMENT)
    assert answer == {"data": None, "errors": [{"message": "nein"}]}
    answer = await simulator.answer(SUBMIT_SEGMENT, segmentId=SEGMENT)
    assert answer["data"]["submitSegmentUserExportJob"]["id"] == (await simulator.job())["id"]
    assert answer["errors"] == [{"message": "jein"}]


async def test_error_stage_and_error_at_submit_end_the_job_in_error(simulator: SimulatorClient) -> None:
    await simulator.set_scenario(stage_s=0)
    await simulator.add_fault("submit", "error_stage", match=SEGMENT)
    job_id = await simulator.submit_segment()
    assert await simulator.poll(job_id) == {"id": (await simulator.job())["short_id"], "stage": "ERROR", "uris": None}

    await simulator.set_scenario(hold_stage="RUNNING")
    await simulator.add_fault("poll", "error_stage", match="AVpZBzpK")
    job_id = await simulator.submit_segment("AVpZBzpK")
    assert [(await simulator.poll(job_id))["stage"] for _ in range(2)] == ["ERROR", "ERROR"]

    await simulator.add_fault("submit", "error_at_submit", match="KzpNmzQk")
    query = SUBMIT_SEGMENT.replace("stage }", "stage error { code message } }")
    job = (await simulator.data(query, segmentId="KzpNmzQk"))["submitSegmentUserExportJob"]
    assert (job["stage"], job["error"]["code"]) == ("ERROR", "EXPORT_FAILED")
    assert (await simulator.poll(job["id"]))["stage"] == "ERROR"


async def test_analysis_finished_at_submit_has_an_empty_error(simulator: SimulatorClient) -> None:
    await simulator.set_scenario(stage_s=60)
    await simulator.add_fault("submit", "finish_at_submit")
    query = """mutation { submitAnalysisExportJob(
      projectId: "WlGk4Daj", id: "klGvyp7E", param: {analysisType: FUNNELS}) { id stage error { code message } } }"""
    job = (await simulator.data(query))["submitAnalysisExportJob"]
    assert (job["stage"], job["error"]) == ("FINISH", {"code": "", "message": None})
    assert (await simulator.poll(job["id"]))["uris"] == ["/jobs-results/downloads/下载漏斗.csv"]


async def test_unknown_stage_is_returned_at_submit_and_while_the_job_runs(simulator: SimulatorClient) -> None:
    await simulator.set_scenario(stage_s=0, hold_stage="RUNNING")
    await simulator.add_fault("submit", "unknown_stage", stage="IN_THE_MAIL")
    await simulator.add_fault("poll", "unknown_stage", stage="DREAMING", times=None)
    data = await simulator.data(SUBMIT_SEGMENT, segmentId=SEGMENT)
    job = data["submitSegmentUserExportJob"]
    assert job["stage"] == "IN_THE_MAIL"
    assert [(await simulator.poll(job["id"]))["stage"] for _ in range(2)] == ["DREAMING", "DREAMING"]
    await simulator.set_scenario(hold_stage=None)
    assert (await simulator.poll(job["id"]))["stage"] == "FINISH"


async def test_empty_uris_is_returned_a_number_of_times_or_always(with_job: SimulatorClient) -> None:
    await with_job.add_fault("poll", "empty_uris", times=2)
    polls = [await with_job.poll(with_job.job_id) for _ in range(3)]
    assert [poll["stage"] for poll in polls] == ["FINISH"] * 3
    assert [poll["uris"] for poll in polls[:2]] == [[], []]
    assert polls[2]["uris"]
    await with_job.add_fault("poll", "empty_uris", times=None)
    assert [(await with_job.poll(with_job.job_id))["uris"] for _ in range(3)] == [[], [], []]


async def test_null_job_hides_the_job_from_one_poll(with_job: SimulatorClient) -> None:
    await with_job.add_fault("poll", "null_job")
    assert await with_job.poll(with_job.job_id) is None
    assert await with_job.poll(with_job.job_id)


async def test_fault_with_match_applies_only_to_the_matching_export(simulator: SimulatorClient) -> None:
    await simulator.add_fault("submit", "graphql_errors", match="AVpZBzpK", times=None)
    await simulator.submit_segment("KzpNmzQk")
    assert (await simulator.answer(SUBMIT_SEGMENT, segmentId="AVpZBzpK"))["data"] is None


# Downloads


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_cut_download_fails_and_the_next_succeeds(with_job: SimulatorClient, framing: str) -> None:
    await with_job.set_scenario(framing=framing)
    await with_job.add_fault("download", "cut", after_bytes=1000)
    with pytest.raises(ClientPayloadError):
        await call(with_job, "download")
    assert (await call(with_job, "download"))[0] == 200


async def test_cut_download_without_framing_ends_with_a_reset(with_job: SimulatorClient) -> None:
    # Without aiohttp's client, which takes the reset for the end of such a body.
    await with_job.set_scenario(framing="close")
    await with_job.add_fault("download", "cut", after_bytes=1000)
    url = with_job.download_url((await with_job.job())["uris"][0])
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(f"GET {url.raw_path_qs} HTTP/1.1\r\nHost: x\r\nAuthorization: sim-token\r\n\r\n".encode())
    assert b" 200 " in await reader.readline()
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()
    with pytest.raises(ConnectionResetError):
        await writer.wait_closed()


async def read_until_end(simulator: SimulatorClient) -> bytes:
    """Downloads the file of the last job, and returns the received bytes."""
    uri = (await simulator.job())["uris"][0]
    received = bytearray()
    async with simulator.download(uri) as response:
        async for piece in response.content.iter_any():
            received += piece
    return bytes(received)


@pytest.mark.parametrize("framing", ["chunked", "close"])
async def test_short_download_without_length_ends_without_an_error(with_job: SimulatorClient, framing: str) -> None:
    await with_job.set_scenario(framing=framing)
    await with_job.add_fault("download", "short", after_bytes=1000)
    received = await read_until_end(with_job)
    assert len(received) == 1000
    assert (await call(with_job, "download"))[1].encode().startswith(received)


async def test_short_download_with_length_is_an_error(with_job: SimulatorClient) -> None:
    await with_job.add_fault("download", "short")
    with pytest.raises(ClientPayloadError):
        await read_until_end(with_job)


@pytest.mark.parametrize("fault", ["cut", "short"])
async def test_download_can_be_cut_before_its_first_byte_or_after_its_last(
    with_job: SimulatorClient, fault: str
) -> None:
    length_bytes = (await with_job.job())["files"][0]["bytes"]
    await with_job.set_scenario(framing="chunked")
    await with_job.add_fault("download", fault, after_bytes=0)
    await with_job.add_fault("download", fault, after_bytes=length_bytes * 2)
    for expected_bytes in (0, length_bytes):
        try:
            assert len(await read_until_end(with_job)) == expected_bytes
        except (ClientPayloadError, ServerDisconnectedError):
            assert fault == "cut"
    assert await with_job.hits() == 2


async def test_slow_download_stalls_in_the_middle_and_is_complete(with_job: SimulatorClient) -> None:
    await with_job.add_fault("download", "slow", after_bytes=500, delay_s=0.1)
    received = await read_until_end(with_job)
    assert sha256(received).hexdigest() == (await with_job.job())["files"][0]["sha256"]


async def test_simulator_works_after_a_client_has_closed_its_download(with_job: SimulatorClient) -> None:
    await with_job.set_scenario(file_bytes=50_000_000)
    job_id = await with_job.submit_segment("AVpZBzpK")
    async with with_job.download((await with_job.poll(job_id))["uris"][0]) as response:
        await response.content.readany()
        response.close()
    assert (await call(with_job, "list"))[0] == 200


# The flaky preset


async def retried(attempt: Callable[[], Awaitable[Any]]) -> tuple[Any, int]:
    """Repeats a call until it succeeds, and returns its result and the number of failures."""
    for failures in range(10):
        try:
            found = await attempt()
        except (ClientPayloadError, ServerDisconnectedError):
            continue
        if found is not None:
            return found, failures
    raise AssertionError("ten attempts failed")


async def flaky_export(simulator: SimulatorClient, segment_id: str) -> list[int]:
    """Exports a segment with retries, and returns the number of failures of each step."""

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

    job_id, submit_failures = await retried(submit)
    uris, poll_failures = await retried(poll)
    body, download_failures = await retried(download)
    exported = next(job for job in await simulator.control("GET", "jobs") if job["id"] == job_id)
    assert sha256(body).hexdigest() == exported["files"][0]["sha256"]
    return [submit_failures, poll_failures, download_failures]


async def test_flaky_preset_fails_each_export_equally_often_until_it_succeeds(simulator: SimulatorClient) -> None:
    await simulator.control("PUT", "scenario", {"flaky": True, "stage_s": 0})
    segments = ["AVpZBzpK", "KzpNmzQk", "V0G5yvGA", "qgQMXnD3", "3mpxywGO"]
    failures = await asyncio.gather(*(flaky_export(simulator, segment_id) for segment_id in segments))
    assert failures == [[1, 4, 2]] * len(segments)
    assert len(simulator.world.jobs) == len(segments)


# The control API


async def test_scenario_is_replaced_by_put_changed_by_patch_and_returned_by_get(simulator: SimulatorClient) -> None:
    assert (await simulator.control("PUT", "scenario", {"title": "a", "rows": 3}))["title"] == "a"
    scenario = await simulator.control("PATCH", "scenario", {"files": 2})
    assert (scenario["title"], scenario["rows"], scenario["files"]) == ("a", 3, 2)
    scenario = await simulator.control("PUT", "scenario", {"rows": 3})
    assert (scenario["title"], scenario["rows"], scenario["files"]) == (None, 3, 1)
    assert await simulator.control("GET", "scenario") == scenario


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("PUT", "scenario", {"stage_s": -1}, "stage_s"),
        ("PUT", "scenario", [], "body"),
        ("PATCH", "scenario", {"framing": "smoke"}, "framing"),
        ("POST", "faults", {"on": "poll", "fault": "gremlins"}, "fault"),
        ("POST", "faults", [{"on": "poll"}], "fault"),
    ],
)
async def test_invalid_control_request_is_answered_with_400_and_the_field(
    simulator: SimulatorClient, method: str, path: str, body: Any, field: str
) -> None:
    answer = await simulator.control(method, path, body, status=400)
    assert field in answer["error"]


async def test_faults_are_added_as_a_list_and_cleared(simulator: SimulatorClient) -> None:
    faults = [{"on": "poll", "fault": "throttled"}, {"on": "list", "fault": "error5xx"}]
    added = await simulator.control("POST", "faults", faults)
    assert [(fault["fault"], fault["hits"]) for fault in added] == [("throttled", 0), ("error5xx", 0)]
    assert await simulator.control("DELETE", "faults") == []
    assert (await simulator.post(LISTING)).status == 200


async def test_reset_removes_jobs_faults_requests_and_scenario_changes(with_job: SimulatorClient) -> None:
    await with_job.add_fault("list", "error5xx")
    await with_job.set_scenario(rows=5)
    await with_job.control("DELETE", "state")
    assert await with_job.control("GET", "jobs") == []
    assert await with_job.control("GET", "faults") == []
    assert await with_job.control("GET", "requests") == {"total": 0, "requests": []}
    assert (await with_job.control("GET", "scenario"))["rows"] == 200
    assert await with_job.submit_segment() != with_job.job_id
