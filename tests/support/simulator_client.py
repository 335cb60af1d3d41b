"""A client that calls a simulator over HTTP and shares no code with the drivers."""

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

JOB_RESULT = "query Poll($id: String!) { jobResult(id: $id) { id stage uris } }"
SUBMIT_SEGMENT = """
mutation Submit($segmentId: HashId!, $charset: String) {
  submitSegmentUserExportJob(projectId: "WlGk4Daj", segmentId: $segmentId, charset: $charset) { id name stage }
}
"""


class SimulatorClient:
    """Calls the platform API of a simulator, and its control API."""

    def __init__(self, url: str, world: World, session: ClientSession) -> None:
        self.url = url
        self.world = world
        self.session = session
        self.authorization: str | None = "Token sim-token"
        self.job_id = ""
        """The id of a job that a fixture has submitted."""

    @classmethod
    @asynccontextmanager
    async def start(cls, settings: SimulatorSettings | None = None) -> AsyncIterator[Self]:
        """Starts a simulator in this process, and yields a client of it."""
        async with Simulator.start(settings=settings) as simulator, ClientSession() as session:
            yield cls(simulator.url, simulator.world, session)

    @property
    def _headers(self) -> dict[str, str]:
        return {} if self.authorization is None else {"Authorization": self.authorization}

    async def post(self, query: str, **variables: Any) -> ClientResponse:
        """Sends a GraphQL request, and returns the answer of any status after its body was read."""
        body = {"query": query, "variables": variables}
        async with self.session.post(f"{self.url}/graphql", json=body, headers=self._headers) as response:
            await response.read()
            return response

    async def answer(self, query: str, **variables: Any) -> Any:
        """Sends a GraphQL request, and returns the JSON of its answer, which must have status 200."""
        response = await self.post(query, **variables)
        assert response.status == 200, await response.text()
        return await response.json()

    async def data(self, query: str, **variables: Any) -> Any:
        """Sends a GraphQL request, and returns the data of its answer, which must have no errors."""
        answer = await self.answer(query, **variables)
        assert "errors" not in answer, answer
        return answer["data"]

    async def submit_segment(self, segment_id: str = SEGMENT, charset: str | None = None) -> str:
        """Submits the export of a segment, and returns the job id."""
        data = await self.data(SUBMIT_SEGMENT, segmentId=segment_id, charset=charset)
        return str(data["submitSegmentUserExportJob"]["id"])

    async def poll(self, job_id: str) -> Any:
        """Polls a job once."""
        return (await self.data(JOB_RESULT, id=job_id))["jobResult"]

    async def exported_uri(self, charset: str | None = None) -> str:
        """Exports a segment with a job that ends at once, and returns the path of the file."""
        await self.set_scenario(stage_s=0)
        return str((await self.poll(await self.submit_segment(charset=charset)))["uris"][0])

    def download_url(self, uri: str) -> URL:
        return URL(f"{self.url}/download?file={quote(uri, safe='/')}", encoded=True)

    @asynccontextmanager
    async def download(self, uri: str) -> AsyncIterator[ClientResponse]:
        """Opens a download. Redirects are not followed."""
        url = self.download_url(uri)
        async with self.session.get(url, headers=self._headers, allow_redirects=False) as response:
            yield response

    async def control(self, method: str, path: str, body: Any = None, status: int = 200) -> Any:
        """Calls the control API, and returns the JSON of its answer."""
        async with self.session.request(method, f"{self.url}/_sim/{path}", json=body) as response:
            assert response.status == status, await response.text()
            return await response.json()

    async def set_scenario(self, **scenario: Any) -> None:
        """Changes fields of the scenario."""
        await self.control("PATCH", "scenario", scenario)

    async def add_fault(self, on: str, fault: str, **options: Any) -> None:
        """Adds a fault."""
        await self.control("POST", "faults", {"on": on, "fault": fault, **options})

    async def hits(self) -> int:
        """Returns the number of calls that the scripted faults have changed."""
        return sum(fault["hits"] for fault in await self.control("GET", "faults"))

    async def job(self, index: int = -1) -> Any:
        """Returns a job in the form of the control API."""
        return (await self.control("GET", "jobs"))[index]
