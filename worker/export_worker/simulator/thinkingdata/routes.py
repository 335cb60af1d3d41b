"""Routes of the simulated ThinkingData: the user cluster and tag API. The SQL API is in `tasks`."""

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from export_worker.simulator.answers import FORM, JSON, Handler, accepting
from export_worker.simulator.faults import JobState, Target
from export_worker.simulator.scenario import Fault
from export_worker.simulator.thinkingdata.calls import ApiContext, Call
from export_worker.simulator.thinkingdata.data import (
    DONE_AT_SUBMIT,
    FAILED_AT_SUBMIT,
    TO_DONE,
    TO_FAILED,
    Cluster,
    with_stage_s,
)
from export_worker.simulator.thinkingdata.envelope import failure, success
from export_worker.simulator.thinkingdata.tasks import Tasks
from export_worker.simulator.world import RECORD, WORLD

NAME_MAX = 24
DISPLAY_NAME_MAX = 50


def register(app: web.Application) -> None:
    """Adds the routes."""
    context = ApiContext(app[WORLD])
    clusters, tasks = _Clusters(context), Tasks(context)
    get = app.router.add_get

    def post(path: str, handler: Handler, media_type: str = JSON) -> None:
        app.router.add_post(path, accepting(media_type, handler))

    post("/open/user-cluster-add", clusters.add)
    get("/open/user-cluster-detail", clusters.detail, allow_head=False)
    post("/open/user-cluster-update", clusters.update)
    post("/open/user-cluster-update-by-name", clusters.update)
    post("/open/user-cluster-delete", clusters.delete)
    post("/open/delete-user-cluster-by-name", clusters.delete)
    post("/open/user-cluster-list", clusters.listing)
    post("/open/user-cluster-refresh", clusters.refresh)
    post("/open/user-cluster-refresh-by-name", clusters.refresh)
    get("/open/user-cluster-refresh-progress", clusters.progress, allow_head=False)
    get("/open/user-cluster-refresh-progress-by-name", clusters.progress, allow_head=False)
    post("/open/import-id-cluster-add", clusters.upload, "text/csv")
    post("/open/import-id-cluster-modify", clusters.replace, "text/csv")
    post("/open/import-id-cluster-modify-by-name", clusters.replace, "text/csv")
    post("/open/submit-sql", tasks.submit, FORM)
    post("/open/cancel-sql-task", tasks.cancel, FORM)
    get("/open/sql-task-info", tasks.info, allow_head=False)
    get("/open/sql-result-page", tasks.page, allow_head=False)


class _Clusters:
    """The request handlers of the cluster and tag API."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context

    async def add(self, request: web.Request) -> web.StreamResponse:
        """`POST user-cluster-add`: answers with the new id."""
        body = await _body(request)

        async def respond(_fault: Fault | None) -> web.StreamResponse:
            error = _error_in(body, ("projectId", "clusterName", "displayName"))
            if error is not None:
                return error
            cluster = self._context.clusters.add(**{"clusterCatalog": "catalog_cluster", "usersNum": 0, **body})
            return success(cluster.about["id"])

        return await self._answer_list_call(request, respond)

    async def detail(self, request: web.Request) -> web.StreamResponse:
        """`GET user-cluster-detail`."""

        async def respond(_fault: Fault | None) -> web.StreamResponse:
            cluster = self._find(request)
            if cluster is None:
                return _not_found()
            progress, _ = self._progress_of(cluster)
            return success(cluster.detail(progress))

        return await self._answer_list_call(request, respond)

    async def update(self, request: web.Request) -> web.StreamResponse:
        """`POST user-cluster-update` and `user-cluster-update-by-name`."""
        body = await _body(request)

        async def respond(_fault: Fault | None) -> web.StreamResponse:
            project = request.query.get("projectId", str(body.get("projectId")))
            cluster = self._find(request, project)
            error = _not_found() if cluster is None else _error_in(body, ("projectId", "displayName"))
            if cluster is None or error is not None:
                return error or _not_found()
            cluster.about |= body
            return success()

        return await self._answer_list_call(request, respond)

    async def delete(self, request: web.Request) -> web.StreamResponse:
        """`POST user-cluster-delete` and `delete-user-cluster-by-name`."""

        async def respond(_fault: Fault | None) -> web.StreamResponse:
            cluster = self._find(request)
            if cluster is None:
                return _not_found()
            self._context.clusters.remove(cluster)
            return success()

        return await self._answer_list_call(request, respond)

    async def listing(self, request: web.Request) -> web.StreamResponse:
        """`POST user-cluster-list`."""
        body = await _body(request)

        async def respond(_fault: Fault | None) -> web.StreamResponse:
            error = _error_in(body, ("clusterCatalog", "clusterTypes", "projectId"))
            return error or success(self._list(body))

        return await self._answer_list_call(request, respond)

    def _list(self, body: Mapping[str, Any]) -> dict[str, Any]:
        found = [
            cluster.detail(self._progress_of(cluster)[0])
            for cluster in self._context.clusters
            if str(cluster.about["projectId"]) == str(body["projectId"])
            and cluster.about["clusterCatalog"] == body["clusterCatalog"]
            and cluster.about.get("clusterType") in body["clusterTypes"]
            and body.get("clusterName", "") in cluster.name
        ]
        pager = body.get("pagerHeader") or {"pageNum": 1, "pageSize": len(found)}
        number, size = pager["pageNum"], pager["pageSize"]
        return {
            "pagerResult": {"pageNum": number, "pageSize": size, "totalNum": len(found)},
            "userClusters": found[(number - 1) * size : number * size],
        }

    async def refresh(self, request: web.Request) -> web.StreamResponse:
        """`POST user-cluster-refresh` and `user-cluster-refresh-by-name`."""

        async def respond(fault: Fault | None) -> web.StreamResponse:
            cluster = self._find(request)
            if cluster is None:
                return _not_found()
            self._start_refresh(cluster, fault)
            return success()

        refusal = self._context.refusal(request)
        text = f"refresh {_query_text(request)}"
        return refusal or await self._context.answer(request, Call("submit", Target(text, text)), respond)

    def _start_refresh(self, cluster: Cluster, fault: Fault | None) -> None:
        world = self._context.world
        plans = {
            "finish_at_submit": DONE_AT_SUBMIT,
            "error_at_submit": FAILED_AT_SUBMIT,
            "error_stage": TO_FAILED,
        }
        plan = plans.get(fault.fault, TO_DONE) if fault is not None else TO_DONE
        cluster.start_refresh(with_stage_s(plan, world.scenario.stage_s), world.clock())

    async def progress(self, request: web.Request) -> web.StreamResponse:
        """`GET user-cluster-refresh-progress` and `user-cluster-refresh-progress-by-name`."""
        cluster = self._find(request)
        refusal = self._context.refusal(request)
        if refusal is not None or cluster is None:
            return refusal or _not_found()
        _, state = self._progress_of(cluster)
        key = f"refresh {cluster.about['id']} {cluster.refreshes}"

        async def respond(fault: Fault | None) -> web.StreamResponse:
            return success({"progress": self._progress(cluster, fault)})

        call = Call("poll", Target(key, f"{key} {cluster.name}"), state)
        return await self._context.answer(request, call, respond)

    def _progress(self, cluster: Cluster, fault: Fault | None) -> Any:
        match fault.fault if fault is not None else None:
            case "stale_progress" if cluster.refresh is not None:
                # The refresh has not started: the platform still reports the progress of the one before it.
                cluster.refresh.started_s = self._context.world.clock()
                return cluster.progress
            case "error_stage" if cluster.refresh is not None:
                cluster.refresh.plan = FAILED_AT_SUBMIT
                return self._progress_of(cluster)[0]
            case "progress_text":
                return f"{self._progress_of(cluster)[0]}%"
            case "progress_null" | "unknown_stage":
                return None
            case _:
                return self._progress_of(cluster)[0]

    async def upload(self, request: web.Request) -> web.StreamResponse:
        """`POST import-id-cluster-add`: one id per line."""
        users = await _lines(request)

        async def respond(_fault: Fault | None) -> web.StreamResponse:
            about = {name: value for name, value in request.query.items() if name != "token"}
            error = _error_in(about, ("projectId", "displayName", "mainColumnName"))
            if error is not None:
                return error
            catalog = about.get("clusterCatalog", "catalog_cluster")
            kind = "tag_by_import" if catalog == "catalog_tag" else "cluster_by_import"
            name = {"clusterName": f"cluster_{self._context.clusters.next_id}", "clusterCatalog": catalog}
            cluster = self._context.clusters.add(**{**name, **about, "clusterType": kind, "usersNum": users})
            return success(_uploaded(cluster.about["id"], users))

        return await self._answer_list_call(request, respond)

    async def replace(self, request: web.Request) -> web.StreamResponse:
        """`POST import-id-cluster-modify` and `import-id-cluster-modify-by-name`."""
        users = await _lines(request)

        async def respond(_fault: Fault | None) -> web.StreamResponse:
            cluster = self._find(request)
            if cluster is None:
                return _not_found()
            changed = {name: request.query[name] for name in ("displayName", "remarks") if name in request.query}
            cluster.about |= {**changed, "usersNum": users}
            return success(_uploaded(cluster.about["id"], users))

        return await self._answer_list_call(request, respond)

    async def _answer_list_call(self, request: web.Request, respond: Any) -> web.StreamResponse:
        """Answers a call that is neither a submit nor a poll. Faults count it as `list`."""
        refusal = self._context.refusal(request)
        text = f"{request.path} {_query_text(request)}"
        return refusal or await self._context.answer(request, Call("list", Target(text, text)), respond)

    def _find(self, request: web.Request, project: str | None = None) -> Cluster | None:
        query = request.query
        return self._context.clusters.find(
            project or query.get("projectId", ""), cluster_id=query.get("clusterId"), name=query.get("clusterName")
        )

    def _progress_of(self, cluster: Cluster) -> tuple[int, JobState]:
        return cluster.progress_at(self._context.world.clock(), self._context.world.scenario.hold_stage)


def _query_text(request: web.Request) -> str:
    """Returns the query without the token, for a fault's `match`."""
    return " ".join(f"{name}={value}" for name, value in request.query.items() if name != "token")


def _not_found() -> web.Response:
    return failure("分群不存在", -1)


def _uploaded(cluster_id: int, users: int) -> dict[str, int]:
    return {"clusterId": cluster_id, "tagValueNullNum": 0, "unmatchedNum": 0, "uploadNum": users, "userNum": users}


def _error_in(fields: Mapping[str, Any], required: tuple[str, ...]) -> web.Response | None:
    for name in required:
        if not fields.get(name):
            return failure(f"参数({name})为空")
    for name, limit in (("clusterName", NAME_MAX), ("displayName", DISPLAY_NAME_MAX)):
        if len(str(fields.get(name, ""))) > limit:
            return failure(f"参数({name})过长")
    return None


async def _body(request: web.Request) -> dict[str, Any]:
    body = await request.json()
    request[RECORD].body = body
    return dict(body)


async def _lines(request: web.Request) -> int:
    """Returns the number of ids in an upload. The body is read in pieces, so its size does not matter."""
    count, last = 0, b"\n"
    async for piece in request.content.iter_any():
        count += piece.count(b"\n")
        last = piece or last
    return count + (not last.endswith(b"\n"))
