"""Plays ThinkingData: the user cluster and tag API, and the SQL API beside it."""

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from export_worker.simulator.faults import Target
from export_worker.simulator.scenario import Fault
from export_worker.simulator.thinkingdata.data import DONE_AT_ONCE, FAILED_AT_ONCE, TO_DONE, TO_FAILED, Cluster, paced
from export_worker.simulator.thinkingdata.envelope import Desk, Question, good, refused
from export_worker.simulator.thinkingdata.tasks import Tasks
from export_worker.simulator.world import RECORD, WORLD

NAME_MAX = 24
SHOWN_NAME_MAX = 50


def register(app: web.Application) -> None:
    """Add ThinkingData's routes."""
    desk = Desk(app[WORLD])
    clusters, tasks = _Clusters(desk), Tasks(desk)
    get, post = app.router.add_get, app.router.add_post
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
    post("/open/import-id-cluster-add", clusters.upload)
    post("/open/import-id-cluster-modify", clusters.replace)
    post("/open/import-id-cluster-modify-by-name", clusters.replace)
    post("/open/submit-sql", tasks.submit)
    get("/open/sql-task-info", tasks.info, allow_head=False)
    get("/open/sql-result-page", tasks.page, allow_head=False)


class _Clusters:
    """The handlers of the cluster and tag API."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def add(self, request: web.Request) -> web.StreamResponse:
        """`POST user-cluster-add`; the data is the new id."""
        body = await _body(request)

        async def make(_fault: Fault | None) -> web.StreamResponse:
            problem = _problem(body, ("projectId", "clusterName", "displayName"))
            if problem is not None:
                return problem
            cluster = self._desk.clusters.add(**{"clusterCatalog": "catalog_cluster", "usersNum": 0, **body})
            return good(cluster.about["id"])

        return await self._listed(request, make)

    async def detail(self, request: web.Request) -> web.StreamResponse:
        """`GET user-cluster-detail`."""

        async def make(_fault: Fault | None) -> web.StreamResponse:
            cluster = self._find(request)
            if cluster is None:
                return _unknown()
            progress, _ = self._look(cluster)
            return good(cluster.detail(progress))

        return await self._listed(request, make)

    async def update(self, request: web.Request) -> web.StreamResponse:
        """`POST user-cluster-update` and `user-cluster-update-by-name`."""
        body = await _body(request)

        async def make(_fault: Fault | None) -> web.StreamResponse:
            project = request.query.get("projectId", str(body.get("projectId")))
            cluster = self._find(request, project)
            problem = _unknown() if cluster is None else _problem(body, ("projectId", "displayName"))
            if cluster is None or problem is not None:
                return problem or _unknown()
            cluster.about |= body
            return good()

        return await self._listed(request, make)

    async def delete(self, request: web.Request) -> web.StreamResponse:
        """`POST user-cluster-delete` and `delete-user-cluster-by-name`."""

        async def make(_fault: Fault | None) -> web.StreamResponse:
            cluster = self._find(request)
            if cluster is None:
                return _unknown()
            self._desk.clusters.remove(cluster)
            return good()

        return await self._listed(request, make)

    async def listing(self, request: web.Request) -> web.StreamResponse:
        """`POST user-cluster-list`."""
        body = await _body(request)

        async def make(_fault: Fault | None) -> web.StreamResponse:
            problem = _problem(body, ("clusterCatalog", "clusterTypes", "projectId"))
            return problem or good(self._list(body))

        return await self._listed(request, make)

    def _list(self, body: Mapping[str, Any]) -> dict[str, Any]:
        found = [
            cluster.detail(self._look(cluster)[0])
            for cluster in self._desk.clusters
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

        async def make(fault: Fault | None) -> web.StreamResponse:
            cluster = self._find(request)
            if cluster is None:
                return _unknown()
            self._begin(cluster, fault)
            return good()

        refusal = self._desk.refusal(request)
        text = f"refresh {_asked(request)}"
        return refusal or await self._desk.answer(request, Question("submit", Target(text, text)), make)

    def _begin(self, cluster: Cluster, fault: Fault | None) -> None:
        world = self._desk.world
        courses = {
            "finish_at_submit": DONE_AT_ONCE,
            "error_at_submit": FAILED_AT_ONCE,
            "error_stage": TO_FAILED,
        }
        course = courses.get(fault.fault, TO_DONE) if fault is not None else TO_DONE
        cluster.begin(paced(course, world.scenario.stage_s), world.clock())

    async def progress(self, request: web.Request) -> web.StreamResponse:
        """`GET user-cluster-refresh-progress` and `user-cluster-refresh-progress-by-name`."""
        cluster = self._find(request)
        refusal = self._desk.refusal(request)
        if refusal is not None or cluster is None:
            return refusal or _unknown()
        _, standing = self._look(cluster)
        key = f"refresh {cluster.about['id']} {cluster.refreshes}"

        async def make(fault: Fault | None) -> web.StreamResponse:
            return good({"progress": self._progress(cluster, fault)})

        question = Question("poll", Target(key, f"{key} {cluster.name}"), standing)
        return await self._desk.answer(request, question, make)

    def _progress(self, cluster: Cluster, fault: Fault | None) -> Any:
        match fault.fault if fault is not None else None:
            case "stale_progress" if cluster.refresh is not None:
                # It has not begun yet: what shows is the last one's.
                cluster.refresh.begun_s = self._desk.world.clock()
                return cluster.progress
            case "error_stage" if cluster.refresh is not None:
                cluster.refresh.course = FAILED_AT_ONCE
                return self._look(cluster)[0]
            case "progress_text":
                return f"{self._look(cluster)[0]}%"
            case "progress_null" | "unknown_stage":
                return None
            case _:
                return self._look(cluster)[0]

    async def upload(self, request: web.Request) -> web.StreamResponse:
        """`POST import-id-cluster-add`: one id a line."""
        users = await _lines(request)

        async def make(_fault: Fault | None) -> web.StreamResponse:
            about = {name: value for name, value in request.query.items() if name != "token"}
            problem = _problem(about, ("projectId", "displayName", "mainColumnName"))
            if problem is not None:
                return problem
            catalog = about.get("clusterCatalog", "catalog_cluster")
            kind = "tag_by_import" if catalog == "catalog_tag" else "cluster_by_import"
            name = {"clusterName": f"cluster_{self._desk.clusters.next_id}", "clusterCatalog": catalog}
            cluster = self._desk.clusters.add(**{**name, **about, "clusterType": kind, "usersNum": users})
            return good(_uploaded(cluster.about["id"], users))

        return await self._listed(request, make)

    async def replace(self, request: web.Request) -> web.StreamResponse:
        """`POST import-id-cluster-modify` and `import-id-cluster-modify-by-name`."""
        users = await _lines(request)

        async def make(_fault: Fault | None) -> web.StreamResponse:
            cluster = self._find(request)
            if cluster is None:
                return _unknown()
            changed = {name: request.query[name] for name in ("displayName", "remarks") if name in request.query}
            cluster.about |= {**changed, "usersNum": users}
            return good(_uploaded(cluster.about["id"], users))

        return await self._listed(request, make)

    async def _listed(self, request: web.Request, make: Any) -> web.StreamResponse:
        """Every call that is neither a submit nor a look at a job."""
        refusal = self._desk.refusal(request)
        text = f"{request.path} {_asked(request)}"
        return refusal or await self._desk.answer(request, Question("list", Target(text, text)), make)

    def _find(self, request: web.Request, project: str | None = None) -> Cluster | None:
        query = request.query
        return self._desk.clusters.find(
            project or query.get("projectId", ""), cluster_id=query.get("clusterId"), name=query.get("clusterName")
        )

    def _look(self, cluster: Cluster) -> Any:
        return cluster.look(self._desk.world.clock(), self._desk.world.scenario.hold_stage)


def _asked(request: web.Request) -> str:
    """The question without the token, so that a fault's `match` can be told what it is about."""
    return " ".join(f"{name}={value}" for name, value in request.query.items() if name != "token")


def _unknown() -> web.Response:
    return refused("分群不存在", -1)


def _uploaded(cluster_id: int, users: int) -> dict[str, int]:
    return {"clusterId": cluster_id, "tagValueNullNum": 0, "unmatchedNum": 0, "uploadNum": users, "userNum": users}


def _problem(fields: Mapping[str, Any], required: tuple[str, ...]) -> web.Response | None:
    for name in required:
        if not fields.get(name):
            return refused(f"参数({name})为空")
    for name, limit in (("clusterName", NAME_MAX), ("displayName", SHOWN_NAME_MAX)):
        if len(str(fields.get(name, ""))) > limit:
            return refused(f"参数({name})过长")
    return None


async def _body(request: web.Request) -> dict[str, Any]:
    body = await request.json()
    request[RECORD].body = body
    return dict(body)


async def _lines(request: web.Request) -> int:
    """Ids in an upload; read as it comes, whatever its size."""
    count, last = 0, b"\n"
    async for piece in request.content.iter_any():
        count += piece.count(b"\n")
        last = piece or last
    return count + (not last.endswith(b"\n"))
