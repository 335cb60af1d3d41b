"""Downloads from the simulator: paths, framings, charsets and content."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from hashlib import sha256
from urllib.parse import quote

import aiohttp
import pytest
from yarl import URL

from support.paths import ROOT
from support.simulator_client import SimulatorClient

RESERVED_TITLE = "下载 a+b&c#d%41?e=f"


@pytest.fixture
async def simulator() -> AsyncIterator[SimulatorClient]:
    async with SimulatorClient.start() as client:
        yield client


async def read(simulator: SimulatorClient, uri: str) -> bytes:
    async with simulator.download(uri) as response:
        assert response.status == 200
        body: bytes = await response.read()
    return body


async def status_of(simulator: SimulatorClient, target: str) -> int:
    headers = {"Authorization": "Token sim-token"}
    async with simulator.session.get(URL(simulator.url + target, encoded=True), headers=headers) as response:
        status: int = response.status
    return status


async def test_path_is_decoded_once_and_recorded_raw(simulator: SimulatorClient) -> None:
    await simulator.set_scenario(title=RESERVED_TITLE)
    uri = await simulator.exported_uri()
    assert uri.endswith(f"/{RESERVED_TITLE}.csv")
    expected = (await simulator.job())["files"][0]["sha256"]
    assert sha256(await read(simulator, uri)).hexdigest() == expected
    recorded = (await simulator.control("GET", "requests"))["requests"][-1]
    assert recorded["target"] == "/download?file=" + quote(uri, safe="/")


@pytest.mark.parametrize(
    "encode",
    [
        pytest.param(lambda uri: quote(quote(uri)), id="twice"),
        pytest.param(lambda uri: uri.replace("下载", quote("下载")).replace(" ", "%20"), id="reserved-characters-left"),
        pytest.param(lambda uri: quote(uri, safe="/%"), id="percent-left"),
        pytest.param(lambda uri: quote(uri, safe="/&"), id="ampersand-left"),
        pytest.param(lambda uri: quote(uri).replace("%20", "+"), id="as-a-form"),
    ],
)
async def test_wrongly_encoded_path_is_not_found(simulator: SimulatorClient, encode: Callable[[str], str]) -> None:
    await simulator.set_scenario(title=RESERVED_TITLE)
    uri = await simulator.exported_uri()
    assert await status_of(simulator, f"/download?file={quote(uri, safe='')}") == 200
    assert await status_of(simulator, f"/download?file={encode(uri)}") == 404


async def test_download_without_file_is_answered_with_400(simulator: SimulatorClient) -> None:
    assert await status_of(simulator, "/download") == 400
    assert await status_of(simulator, "/download?path=/a.csv") == 400


async def test_target_without_percent_encoding_is_answered_with_400(simulator: SimulatorClient) -> None:
    uri = await simulator.exported_uri()
    url = URL(simulator.url)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    head = f"GET /download?file={uri} HTTP/1.1\r\nHost: x\r\nAuthorization: sim-token\r\nConnection: close\r\n\r\n"
    writer.write(head.encode())
    assert b" 400 " in await reader.readline()
    writer.close()
    await writer.wait_closed()


async def test_file_is_found_only_after_its_job_has_finished(simulator: SimulatorClient) -> None:
    await simulator.set_scenario(stage_s=0, hold_stage="DATA_READY")
    await simulator.submit_segment()
    uri = (await simulator.job())["uris"][0]
    async with simulator.download(uri) as response:
        assert response.status == 404
    await simulator.set_scenario(hold_stage=None)
    assert await read(simulator, uri)


async def test_download_needs_no_token_if_the_scenario_allows_it(simulator: SimulatorClient) -> None:
    uri = await simulator.exported_uri()
    await simulator.set_scenario(download_needs_token=False)
    simulator.authorization = None
    assert await read(simulator, uri)


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@pytest.mark.parametrize("file_bytes", [0, 1, 3_000_000])
async def test_every_framing_sends_the_same_bytes(simulator: SimulatorClient, framing: str, file_bytes: int) -> None:
    await simulator.set_scenario(framing=framing, file_bytes=file_bytes)
    uri = await simulator.exported_uri()
    async with simulator.download(uri) as response:
        head = (response.headers.get("Content-Length"), response.headers.get("Transfer-Encoding"))
        body = await response.read()
    expected = {"length": (str(file_bytes), None), "chunked": (None, "chunked"), "close": (None, None)}
    assert head == expected[framing]
    file = (await simulator.job())["files"][0]
    assert (len(body), sha256(body).hexdigest()) == (file["bytes"], file["sha256"])
    assert file["bytes"] == file_bytes


async def test_http_1_0_client_receives_no_chunks(simulator: SimulatorClient) -> None:
    await simulator.set_scenario(framing="chunked")
    uri = await simulator.exported_uri()
    old = aiohttp.HttpVersion10
    async with (
        aiohttp.ClientSession(version=old, headers={"Authorization": "sim-token"}) as session,
        session.get(simulator.download_url(uri)) as response,
    ):
        assert "Transfer-Encoding" not in response.headers
        assert len(await response.read()) == (await simulator.job())["files"][0]["bytes"]


@pytest.mark.parametrize(
    ("charset", "codec"), [(None, "utf-8"), ("UTF-8", "utf-8"), ("UTF-16LE", "utf-16-le"), ("GB18030", "gb18030")]
)
async def test_content_has_the_charset_of_the_job(simulator: SimulatorClient, charset: str | None, codec: str) -> None:
    body = await read(simulator, await simulator.exported_uri(charset))
    assert body.decode(codec).startswith("用户ID,姓名,城市\n")
    assert body.decode(codec).count("\n") == 201


async def test_requested_tags_and_properties_add_columns(simulator: SimulatorClient) -> None:
    await simulator.set_scenario(stage_s=0)
    data = await simulator.data(
        """mutation { submitSegmentUserExportJob(
          projectId: "WlGk4Daj", segmentId: "AVpZBzpK", tags: ["mgGJj3GA"], properties: ["usr_city"]) { id } }"""
    )
    result = await simulator.poll(data["submitSegmentUserExportJob"]["id"])
    lines = (await read(simulator, result["uris"][0])).decode().splitlines()
    assert lines[0] == "用户ID,姓名,城市,订单交易笔数,usr_city"


async def test_control_api_sends_correct_bytes_despite_faults(simulator: SimulatorClient) -> None:
    uri = await simulator.exported_uri()
    await simulator.add_fault("download", "missing", times=None)
    job = await simulator.job()
    for params in ({"file": uri}, {"job": job["id"], "index": "0"}):
        async with simulator.session.get(f"{simulator.url}/_sim/content", params=params) as response:
            assert sha256(await response.read()).hexdigest() == job["files"][0]["sha256"]


@pytest.mark.parametrize("params", [{"file": "/none"}, {"job": "none"}, {}, {"index": "x"}])
async def test_control_api_answers_404_for_unknown_content(simulator: SimulatorClient, params: dict[str, str]) -> None:
    async with simulator.session.get(f"{simulator.url}/_sim/content", params=params) as response:
        assert response.status == 404


async def test_path_shared_by_analyses_refers_to_the_newest_job(simulator: SimulatorClient) -> None:
    await simulator.set_scenario(stage_s=0)
    for analysis_id in ("klGvyp7E", "zqQR3po3"):
        await simulator.data(
            """mutation ($id: HashId!) { submitAnalysisExportJob(
              projectId: "WlGk4Daj", id: $id, param: {analysisType: FUNNELS}) { id } }""",
            id=analysis_id,
        )
    old, new = await simulator.control("GET", "jobs")
    assert old["uris"] == new["uris"] == ["/jobs-results/downloads/下载漏斗.csv"]
    assert old["files"][0]["sha256"] != new["files"][0]["sha256"]
    assert sha256(await read(simulator, new["uris"][0])).hexdigest() == new["files"][0]["sha256"]


async def test_bytes_per_s_slows_a_download_without_changing_it(simulator: SimulatorClient) -> None:
    await simulator.set_scenario(file_bytes=3000, bytes_per_s=30_000)
    uri = await simulator.exported_uri()
    started_s = time.monotonic()
    assert sha256(await read(simulator, uri)).hexdigest() == (await simulator.job())["files"][0]["sha256"]
    # The rate applies to the last byte, too. Otherwise a small file would not be slow at all.
    assert time.monotonic() - started_s >= 0.1


MEMORY_PROBE = """
import asyncio, sys
from export_worker.simulator.server import serve
asyncio.run(serve())
# Not `ru_maxrss`: a child process inherits the peak of the process that forked it.
status = open("/proc/self/status").read()
sys.stdout.write(status.split("VmHWM:")[1].split()[0] + "\\n")
"""


async def test_simulator_process_streams_large_file_in_little_memory_and_exits_on_sigterm() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "worker")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", MEMORY_PROBE, stdout=asyncio.subprocess.PIPE, env=environment
    )
    try:
        assert process.stdout is not None
        url = (await process.stdout.readline()).decode().removeprefix("platform simulator: ").strip()
        async with aiohttp.ClientSession(headers={"Authorization": "Token sim-token"}) as session:
            file_bytes = 300 * 2**20
            settings = {"stage_s": 0, "file_bytes": file_bytes, "framing": "chunked"}
            async with session.put(f"{url}/_sim/scenario", json=settings) as response:
                assert response.status == 200
            query = 'mutation { submitTagUserExportJob(tagId: "mgGJj3GA") { id } }'
            async with session.post(f"{url}/graphql", json={"query": query}) as response:
                job_id = (await response.json())["data"]["submitTagUserExportJob"]["id"]
            body = {"query": "query ($id: String!) { jobResult(id: $id) { uris } }", "variables": {"id": job_id}}
            async with session.post(f"{url}/graphql", json=body) as response:
                uri = (await response.json())["data"]["jobResult"]["uris"][0]
            received_bytes = 0
            async with session.get(f"{url}/download?file={uri}") as response:
                async for piece in response.content.iter_any():
                    received_bytes += len(piece)
        assert received_bytes == file_bytes
        process.send_signal(signal.SIGTERM)
        peak_kib = int(await process.stdout.readline())
        assert await process.wait() == 0
        assert peak_kib < 160 * 1024  # about half of the file; it includes the interpreter and libraries
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
