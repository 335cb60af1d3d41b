"""Routes of ThinkingData's SQL API: tasks, whose stages follow the clock, and the pages of their results."""

import asyncio
from typing import Any

from aiohttp import web

from export_worker.simulator.faults import Target
from export_worker.simulator.jobs import Job
from export_worker.simulator.scenario import Fault
from export_worker.simulator.thinkingdata.calls import ApiContext, Call
from export_worker.simulator.thinkingdata.envelope import failure, success
from export_worker.simulator.thinkingdata.jobs import FINISHED, empty_columns, new_job, result_of
from export_worker.simulator.thinkingdata.pages import Result, page_count, page_text, send_page
from export_worker.simulator.thinkingdata.sql import SqlError, read_statement

PAGE_ROWS = 10_000
PAGE_ROWS_MIN = 1000
FORMATS = ("json", "csv")
"""The document has further formats. A real deployment refuses one of them, and no driver needs them."""


class Tasks:
    """The request handlers."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context

    async def submit(self, request: web.Request) -> web.StreamResponse:
        """`POST /open/submit-sql`: a form."""
        refusal = self._context.refusal(request)
        if refusal is not None:
            return refusal
        form = {name: str(value) for name, value in (await request.post()).items()}
        text = f"submit-sql {form.get('sql')}"

        async def respond(fault: Fault | None) -> web.StreamResponse:
            return self._submit(form, fault)

        return await self._context.answer(request, Call("submit", Target(text, text)), respond)

    def _submit(self, form: dict[str, str], fault: Fault | None) -> web.Response:
        page_rows = form.get("pageSize", str(PAGE_ROWS))
        if not page_rows.isdecimal() or int(page_rows) < PAGE_ROWS_MIN:
            return failure("参数(pageSize)错误")
        if form.get("format", "json") not in FORMATS:
            return failure("参数(format)错误")
        try:
            selection = read_statement(form.get("sql", ""))
        except SqlError as error:
            return failure(f"SQL: {error}", -1)
        world = self._context.world
        cluster = self._context.clusters.find(selection.project, name=selection.cluster)
        job = new_job(world, form, result_of(world, selection, exists=cluster is not None), fault)
        job.arguments["empty"] = empty_columns(selection, cluster)
        return success({"taskId": job.job_id})

    async def info(self, request: web.Request) -> web.StreamResponse:
        """`GET /open/sql-task-info`."""
        refusal = self._context.refusal(request)
        if refusal is not None:
            return refusal
        world, task_id = self._context.world, request.query.get("taskId", "")
        job = world.jobs.find(task_id)
        if job is None:
            return failure("任务不存在")
        job.polls += 1

        async def respond(fault: Fault | None) -> web.StreamResponse:
            return self._info(job, fault)

        return await self._context.answer(request, Call("poll", _target(job), world.state(job)), respond)

    def _info(self, job: Job, fault: Fault | None) -> web.Response:
        world = self._context.world
        name = None if fault is None else fault.fault
        if name == "expired_task":
            self._context.clusters.expired_tasks.add(job.job_id)
        if job.job_id in self._context.clusters.expired_tasks:
            return failure("任务不存在或已过期", -1)
        if name == "error_stage":
            job.fail("FAILED")
        status = world.stage(job)
        info: dict[str, Any] = {"taskId": job.job_id, "status": status, "progress": 100 if status == FINISHED else 40}
        if status == "FAILED":
            info["errorMessage"] = "Query exceeded distributed user memory limit"
        if status == FINISHED:
            info["resultStat"] = _stat(job, extra_rows=1 if name == "wrong_row_count" else 0)
        if fault is not None and name == "unknown_stage":
            info |= {"status": fault.stage, "resultStat": None}
        if name == "progress_null":
            info["progress"] = None
        return success(info)

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        """`POST /open/cancel-sql-task`: a form."""
        refusal = self._context.refusal(request)
        if refusal is not None:
            return refusal
        job = self._context.world.jobs.find(str((await request.post()).get("taskId", "")))
        if job is None:
            return failure("任务不存在")

        async def respond(_fault: Fault | None) -> web.StreamResponse:
            if self._context.world.state(job) == "running":
                job.fail("CANCELED")
            return success()

        return await self._context.answer(request, Call("list", _target(job)), respond)

    async def page(self, request: web.Request) -> web.StreamResponse:
        """`GET /open/sql-result-page`: the rows without a header. `pageId` starts at 0."""
        refusal = self._context.refusal(request)
        if refusal is not None:
            return refusal
        job = self._context.world.jobs.find(request.query.get("taskId", ""))
        if job is None:
            return failure("任务不存在")

        async def respond(fault: Fault | None) -> web.StreamResponse:
            return await self._page(request, job, fault)

        return await self._context.answer(request, Call("download", _target(job)), respond)

    async def _page(self, request: web.Request, job: Job, fault: Fault | None) -> web.StreamResponse:
        world = self._context.world
        if fault is not None and fault.fault == "expired_task":
            self._context.clusters.expired_tasks.add(job.job_id)
        if job.job_id in self._context.clusters.expired_tasks:
            return failure("任务不存在或已过期", -1)
        number = request.query.get("pageId", "")
        spec, page_rows = job.files[0].spec, _page_rows(job)
        exists = number.isdecimal() and int(number) < page_count(spec.rows, page_rows)
        if world.state(job) != "finished" or not exists:
            return failure("参数(pageId)错误")
        result = Result(spec, page_rows, job.arguments.get("format", "json"), job.arguments["empty"])
        text = await asyncio.to_thread(page_text, result, int(number), fault)
        return await send_page(request, text, fault=fault, bytes_per_s=world.scenario.bytes_per_s)


def _page_rows(job: Job) -> int:
    return int(job.arguments.get("pageSize", PAGE_ROWS))


def _stat(job: Job, *, extra_rows: int) -> dict[str, Any]:
    spec, page_rows = job.files[0].spec, _page_rows(job)
    return {
        "headers": list(spec.columns),
        "rowCount": spec.rows + extra_rows,
        "pageCount": page_count(spec.rows, page_rows),
        "pageSize": page_rows,
    }


def _target(job: Job) -> Target:
    """Returns the target of calls about a task. All pages share its key, so a `cut` cuts one page and not each."""
    return Target(job.job_id, f"{job.job_id} {job.arguments.get('sql')}")
