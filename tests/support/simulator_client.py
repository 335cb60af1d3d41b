"""Calls a simulator as a stranger would: over HTTP, with nothing of the drivers."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self
from urllib.parse import quote

from aiohttp import ClientResponse, ClientSession
from yarl import URL

from export_worker.simulator.server import Simulator
from export_worker.simulator.world import SimulatorSettings, World

PROJECT = "WlGk4Daj"
SEGMENT = "qgQMXnD3"

JOB_RESULT = "query Look($id: String!) { jobResult(id: $id) { id stage uris } }"
SUBMIT_SEGMENT = """
mutation Submit($segmentId: HashId!, $charset: String) {
  submitSegmentUserExportJob(projectId: "WlGk4Daj", segmentId: $segmentId, charset: $charset) { id name stage }
}
"""


class SimulatorClient:
    """A simulator's user and its master in one."""

    def __init__(self, url: str, world: World, session: ClientSession) -> None:
        self.url = url
        self.world = world
        self.session = session
        self.authorization: str | None = "Token sim-token"
        self.job_id = ""
        """A job that a fixture has submitted."""

    @classmethod
    @asynccontextmanager
    async def start(cls, settings: SimulatorSettings | None = None) -> AsyncIterator[Self]:
        async with Simulator.start(settings=settings) as simulator, ClientSession() as session:
            yield cls(simulator.url, simulator.world, session)

    @property
    def _headers(self) -> dict[str, str]:
        return {} if self.authorization is None else {"Authorization": self.authorization}

    async def post(self, query: str, **variables: Any) -> ClientResponse:
        """The answer to a GraphQL request, whatever it is; its body has been read."""
        body = {"query": query, "variables": variables}
        async with self.session.post(f"{self.url}/graphql", json=body, headers=self._headers) as response:
            await response.read()
            return response

    async def answer(self, query: str, **variables: Any) -> Any:
        """The JSON of an answer with status 200."""
        response = await self.post(query, **variables)
        assert response.status == 200, await response.text()
        return await response.json()

    async def data(self, query: str, **variables: Any) -> Any:
        """The data of an answer without errors."""
        answer = await self.answer(query, **variables)
        assert "errors" not in answer, answer
        return answer["data"]

    async def submit_segment(self, segment_id: str = SEGMENT, charset: str | None = None) -> str:
        """Submit a segment's export; gives the job's id."""
        data = await self.data(SUBMIT_SEGMENT, segmentId=segment_id, charset=charset)
        return str(data["submitSegmentUserExportJob"]["id"])

    async def look(self, job_id: str) -> Any:
        """One look at a job."""
        return (await self.data(JOB_RESULT, id=job_id))["jobResult"]

    async def exported_uri(self, charset: str | None = None) -> str:
        """Have a segment exported in no time; gives the file's path."""
        await self.tell(stage_s=0)
        return str((await self.look(await self.submit_segment(charset=charset)))["uris"][0])

    def download_url(self, uri: str) -> URL:
        return URL(f"{self.url}/download?file={quote(uri, safe='/')}", encoded=True)

    @asynccontextmanager
    async def download(self, uri: str) -> AsyncIterator[ClientResponse]:
        """An open download, redirects not followed."""
        url = self.download_url(uri)
        async with self.session.get(url, headers=self._headers, allow_redirects=False) as response:
            yield response

    async def control(self, method: str, path: str, body: Any = None, status: int = 200) -> Any:
        """A call to the control API."""
        async with self.session.request(method, f"{self.url}/_sim/{path}", json=body) as response:
            assert response.status == status, await response.text()
            return await response.json()

    async def tell(self, **scenario: Any) -> None:
        await self.control("PATCH", "scenario", scenario)

    async def fault(self, on: str, fault: str, **options: Any) -> None:
        await self.control("POST", "faults", {"on": on, "fault": fault, **options})

    async def hits(self) -> int:
        """How often the scripted faults have struck."""
        return sum(fault["hits"] for fault in await self.control("GET", "faults"))

    async def job(self, index: int = -1) -> Any:
        """A job as the control API describes it."""
        return (await self.control("GET", "jobs"))[index]
