"""The worker that most teams write first: arq, aiohttp and boto3, one object, and none of the guarantees.

A worker that dies loses the export or submits it twice. A cut download is stored. A slow sink loses its event.
"""

import asyncio
import json
import os
from pathlib import PurePosixPath
from typing import Any

import aiohttp
import boto3
from arq.connections import RedisSettings
from arq.worker import Worker

POLL_S = 0.05
SUBMIT = """mutation SubmitSegmentUserExportJob($projectId: HashId!, $segmentId: HashId!) {
  submitSegmentUserExportJob(projectId: $projectId, segmentId: $segmentId) { id stage } }"""
RESULT = "query JobResult($id: String!) { jobResult(id: $id) { id stage uris } }"


async def graphql(http: aiohttp.ClientSession, query: str, **variables: str) -> Any:
    async with http.post("/graphql", json={"query": query, "variables": variables}) as response:
        response.raise_for_status()
        ((_, result),) = (await response.json())["data"].items()
        return result


async def export(ctx: dict[str, Any], project_id: str, segment_id: str) -> None:
    http, key = ctx["http"], ctx["job_id"]
    job = await graphql(http, SUBMIT, projectId=project_id, segmentId=segment_id)
    while not (result := await graphql(http, RESULT, id=job["id"]))["uris"]:
        if result["stage"] == "ERROR":
            raise RuntimeError(f"job {job['id']} failed")
        await asyncio.sleep(POLL_S)
    for uri in result["uris"]:
        async with http.get("/download", params={"file": uri}) as response:
            response.raise_for_status()
            body = await response.read()
        key = f"{ctx['job_id']}/{PurePosixPath(uri).name}"
        await asyncio.to_thread(ctx["s3"].put_object, Bucket=os.environ["PEER_BUCKET"], Key=key, Body=body)
    await ctx["redis"].xadd(os.environ["PEER_STREAM"], {"event": json.dumps({"job": ctx["job_id"], "key": key})})


async def startup(ctx: dict[str, Any]) -> None:
    headers = {"Authorization": f"Token {os.environ['PEER_TOKEN']}"}
    ctx["http"] = aiohttp.ClientSession(os.environ["PEER_PLATFORM"], headers=headers)
    ctx["s3"] = boto3.client("s3", endpoint_url=os.environ["PEER_S3"], region_name="us-east-1")


if __name__ == "__main__":
    asyncio.set_event_loop(asyncio.new_event_loop())
    Worker(
        functions=[export],
        on_startup=startup,
        redis_settings=RedisSettings.from_dsn(os.environ["PEER_REDIS"]),
        max_jobs=int(os.environ["PEER_MAX_JOBS"]),
        poll_delay=0.02,
        keep_result=0,
    ).run()
