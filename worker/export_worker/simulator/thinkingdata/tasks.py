"""Plays ThinkingData's SQL API: tasks that run by the clock, and their results page by page."""

import asyncio
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from aiohttp import web

from export_worker.simulator.faults import Target
from export_worker.simulator.files import MIN_ROW_BYTES, FileSpec
from export_worker.simulator.jobs import Course, Job, JobFile
from export_worker.simulator.scenario import Fault
from export_worker.simulator.thinkingdata.envelope import Desk, Question, good, refused
from export_worker.simulator.thinkingdata.pages import page_count, page_text, send_page
from export_worker.simulator.thinkingdata.sql import Selection, SqlError, read_statement

FINISHED = "FINISHED"
TO_FINISHED = ("RUNNING", FINISHED)
TO_FAILED = ("RUNNING", "FAILED")
PAGE_ROWS = 10_000
PAGE_ROWS_MIN = 1000
FORMATS = ("json", "csv")
"""Others are documented, too; one of them is refused by a deployment, and none is needed."""

_ROW_BYTES = 3 * MIN_ROW_BYTES
"""About what a row has, for a scenario that tells a length."""


class Tasks:
    """The handlers."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def submit(self, request: web.Request) -> web.StreamResponse:
        """`POST /open/submit-sql`: a form."""
        refusal = self._desk.refusal(request)
        if refusal is not None:
            return refusal
        form = {name: str(value) for name, value in (await request.post()).items()}
        text = f"submit-sql {form.get('sql')}"

        async def make(fault: Fault | None) -> web.StreamResponse:
            return self._submit(form, fault)

        return await self._desk.answer(request, Question("submit", Target(text, text)), make)

    def _submit(self, form: dict[str, str], fault: Fault | None) -> web.Response:
        page_rows = form.get("pageSize", str(PAGE_ROWS))
        if not page_rows.isdecimal() or int(page_rows) < PAGE_ROWS_MIN:
            return refused("参数(pageSize)错误")
        if form.get("format", "json") not in FORMATS:
            return refused("参数(format)错误")
        try:
            selection = read_statement(form.get("sql", ""))
        except SqlError as error:
            return refused(f"SQL: {error}", -1)
        return good({"taskId": self._new_task(form, selection, fault).job_id})

    def _new_task(self, form: dict[str, str], selection: Selection, fault: Fault | None) -> Job:
        world = self._desk.world
        task_id = sha256(f"{world.run_id}/sql/{len(world.jobs)}".encode()).hexdigest()[:16]
        failed = fault is not None and fault.fault in {"error_at_submit", "error_stage"}
        stage_s = 0.0 if fault is not None and fault.fault.endswith("_at_submit") else world.scenario.stage_s
        job = Job(
            job_id=task_id,
            short_id=task_id,
            kind="sql",
            call="submit-sql",
            arguments=dict(form),
            name=None,
            charset="UTF-8",
            files=(JobFile(f"/open/sql-result-page?taskId={task_id}", self._result(selection)),),
            course=Course(TO_FAILED if failed else TO_FINISHED, stage_s, succeeds=not failed),
            created_s=world.clock(),
            created_at=datetime.now(UTC),
        )
        world.jobs.add(job)
        return job

    def _result(self, selection: Selection) -> FileSpec:
        scenario = self._desk.world.scenario
        rows = scenario.rows if scenario.file_bytes is None else scenario.file_bytes // _ROW_BYTES
        known = self._desk.clusters.find(selection.project, name=selection.cluster) is not None
        return FileSpec(
            seed=f"{self._desk.world.settings.seed}/thinkingdata/{selection.project}/{selection.cluster}",
            columns=selection.columns,
            rows=rows if known else 0,
        )

    async def info(self, request: web.Request) -> web.StreamResponse:
        """`GET /open/sql-task-info`."""
        refusal = self._desk.refusal(request)
        if refusal is not None:
            return refusal
        world, task_id = self._desk.world, request.query.get("taskId", "")
        job = world.jobs.find(task_id)
        if job is None:
            return refused("任务不存在")
        job.polls += 1

        async def make(fault: Fault | None) -> web.StreamResponse:
            return self._info(job, fault)

        return await self._desk.answer(request, Question("poll", _target(job), world.standing(job)), make)

    def _info(self, job: Job, fault: Fault | None) -> web.Response:
        world = self._desk.world
        name = None if fault is None else fault.fault
        if name == "expired_task":
            self._desk.clusters.expired_tasks.add(job.job_id)
        if job.job_id in self._desk.clusters.expired_tasks:
            return refused("任务不存在或已过期", -1)
        if name == "error_stage":
            job.fail("FAILED")
        status = world.stage(job)
        info: dict[str, Any] = {"taskId": job.job_id, "status": status, "progress": 100 if status == FINISHED else 40}
        if status == "FAILED":
            info["errorMessage"] = "Query exceeded distributed user memory limit"
        if status == FINISHED:
            info["resultStat"] = _stat(job, lie=1 if name == "wrong_row_count" else 0)
        if fault is not None and name == "unknown_stage":
            info |= {"status": fault.stage, "resultStat": None}
        if name == "progress_null":
            info["progress"] = None
        return good(info)

    async def page(self, request: web.Request) -> web.StreamResponse:
        """`GET /open/sql-result-page`: rows alone; `pageId` counts from 0."""
        refusal = self._desk.refusal(request)
        if refusal is not None:
            return refusal
        job = self._desk.world.jobs.find(request.query.get("taskId", ""))
        if job is None:
            return refused("任务不存在")

        async def make(fault: Fault | None) -> web.StreamResponse:
            return await self._page(request, job, fault)

        return await self._desk.answer(request, Question("download", _target(job)), make)

    async def _page(self, request: web.Request, job: Job, fault: Fault | None) -> web.StreamResponse:
        world = self._desk.world
        if fault is not None and fault.fault == "expired_task":
            self._desk.clusters.expired_tasks.add(job.job_id)
        if job.job_id in self._desk.clusters.expired_tasks:
            return refused("任务不存在或已过期", -1)
        number = request.query.get("pageId", "")
        spec, page_rows = job.files[0].spec, _page_rows(job)
        there = number.isdecimal() and int(number) < page_count(spec.rows, page_rows)
        if world.standing(job) != "finished" or not there:
            return refused("参数(pageId)错误")
        form = job.arguments.get("format", "json")
        text = await asyncio.to_thread(page_text, spec, int(number), page_rows, form, fault)
        return await send_page(request, text, fault=fault, bytes_per_s=world.scenario.bytes_per_s)


def _page_rows(job: Job) -> int:
    return int(job.arguments.get("pageSize", PAGE_ROWS))


def _stat(job: Job, *, lie: int) -> dict[str, Any]:
    spec, page_rows = job.files[0].spec, _page_rows(job)
    return {
        "headers": list(spec.columns),
        "rowCount": spec.rows + lie,
        "pageCount": page_count(spec.rows, page_rows),
        "pageSize": page_rows,
    }


def _target(job: Job) -> Target:
    """Pages count by their task: an export of many pages is cut once, not once a page."""
    return Target(job.job_id, f"{job.job_id} {job.arguments.get('sql')}")
