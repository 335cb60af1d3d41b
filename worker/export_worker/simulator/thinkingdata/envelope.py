"""What all of ThinkingData's played calls share: the token in the query string, the envelope, and faults."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from export_worker.simulator.answers import json_answer, spoilt_answer
from export_worker.simulator.faults import Standing, Target
from export_worker.simulator.scenario import CallType, Fault
from export_worker.simulator.thinkingdata.data import ClusterStore, new_store
from export_worker.simulator.world import RECORD, World

PARAMETER_WRONG = -1008
"""The one code that the platform's document shows, for whatever is missing."""


def good(data: Any = None) -> web.Response:
    """An answer with `return_code` 0."""
    envelope = {"return_code": 0, "return_message": "success"}
    return json_answer(envelope if data is None else {"data": data, **envelope})


def refused(message: str, code: int = PARAMETER_WRONG) -> web.Response:
    """An error: HTTP 200, like everything else."""
    return json_answer({"return_code": code, "return_message": message})


@dataclass(frozen=True, slots=True)
class Question:
    """What a call is about, as far as faults are concerned."""

    on: CallType
    target: Target
    standing: Standing | None = None


class Desk:
    """Checks the token, lets faults strike, and keeps the clusters of one run."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._of_run = ""
        self._clusters = new_store()

    @property
    def clusters(self) -> ClusterStore:
        """Those of this run: a simulator that was reset has fresh ones."""
        if self._of_run != self.world.run_id:
            self._of_run, self._clusters = self.world.run_id, new_store()
        return self._clusters

    def refusal(self, request: web.Request) -> web.Response | None:
        """The answer to a call without the right token. What a wrong one gets is not documented."""
        token = request.query.get("token", "")
        record = request[RECORD]
        record.authorized = self.world.tokens.accepts(token, self.world.clock())
        if not token:
            return refused("参数(token)为空")
        return None if record.authorized else refused("参数(token)无效")

    async def answer(
        self,
        request: web.Request,
        question: Question,
        make: Callable[[Fault | None], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:
        """The right answer, unless a fault has another."""
        fault = self.world.take_fault(question.on, question.target, question.standing)
        if fault is None:
            return await make(None)
        await asyncio.sleep(fault.wait_s)
        instead = await self._instead(request, question, fault)
        if instead is not None and not fault.executed:
            return instead
        answer = await make(fault)
        return instead or answer

    async def _instead(self, request: web.Request, question: Question, fault: Fault) -> web.Response | None:
        match fault.fault:
            case "return_code":
                return refused(fault.message, fault.return_code)
            case "unauthorized":
                return refused("参数(token)无效")
            case "echo_secret":
                return refused(f"{fault.message}: {request.raw_path}", -1)
            case "cut" if question.on == "download":
                return None
            case _:
                return await spoilt_answer(request, fault)
