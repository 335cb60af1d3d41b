"""Handling that all ThinkingData calls share: they check the token and apply faults."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

from export_worker.simulator.answers import spoilt_answer
from export_worker.simulator.faults import JobState, Target
from export_worker.simulator.scenario import CallType, Fault
from export_worker.simulator.thinkingdata.data import ClusterStore, new_store
from export_worker.simulator.thinkingdata.envelope import failure
from export_worker.simulator.world import RECORD, World


@dataclass(frozen=True, slots=True)
class Call:
    """The properties of a call by which a fault is chosen."""

    on: CallType
    target: Target
    state: JobState | None = None


class ApiContext:
    """Checks tokens, applies faults, and has the clusters of the current run."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._run_id = ""
        self._clusters = new_store()

    @property
    def clusters(self) -> ClusterStore:
        """The clusters of the current run. After a reset of the simulator they are the initial ones again."""
        if self._run_id != self.world.run_id:
            self._run_id, self._clusters = self.world.run_id, new_store()
        return self._clusters

    def refusal(self, request: web.Request) -> web.Response | None:
        """Returns the error for a call without a valid token; None if the token is valid.

        The platform's document does not say how a wrong token is answered.
        """
        token = request.query.get("token", "")
        record = request[RECORD]
        record.authorized = self.world.tokens.accepts(token, self.world.clock())
        if not token:
            return failure("参数(token)为空")
        return None if record.authorized else failure("参数(token)无效")

    async def answer(
        self,
        request: web.Request,
        call: Call,
        respond: Callable[[Fault | None], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:
        """Returns the answer of `respond`, or the one that the call's fault puts in its place."""
        fault = self.world.take_fault(call.on, call.target, call.state)
        if fault is None:
            return await respond(None)
        await asyncio.sleep(fault.wait_s)
        replacement = await self._replacement(request, call, fault)
        if replacement is not None and not fault.executed:
            return replacement
        answer = await respond(fault)
        return replacement or answer

    async def _replacement(self, request: web.Request, call: Call, fault: Fault) -> web.Response | None:
        match fault.fault:
            case "return_code":
                return failure(fault.message, fault.return_code)
            case "unauthorized":
                return failure("参数(token)无效")
            case "echo_secret":
                return failure(f"{fault.message}: {request.raw_path}", -1)
            case "cut" if call.on == "download":
                return None
            case _:
                return await spoilt_answer(request, fault)
