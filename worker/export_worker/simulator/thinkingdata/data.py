"""The data of the simulated ThinkingData: the clusters and tags of its document, and the state of their refreshes."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from export_worker.simulator.faults import JobState
from export_worker.simulator.jobs import StagePlan

PROJECT = 102

_BEFORE = "BEFORE"
"""A requested refresh that has not started: the cluster still has the progress of the refresh before it."""
TO_DONE = StagePlan((_BEFORE, "0", "40", "80", "100"), 0.0, succeeds=True)
TO_FAILED = StagePlan((_BEFORE, "0", "40", "-1"), 0.0, succeeds=False)
DONE_AT_SUBMIT = StagePlan(("100",), 0.0, succeeds=True)
FAILED_AT_SUBMIT = StagePlan(("-1",), 0.0, succeeds=False)


def with_stage_s(plan: StagePlan, stage_s: float) -> StagePlan:
    """Returns the plan with this time in each stage."""
    return replace(plan, stage_s=stage_s)


@dataclass(slots=True)
class Refresh:
    """A running refresh."""

    plan: StagePlan
    started_s: float


@dataclass(slots=True)
class Cluster:
    """A cluster or tag.

    Args:
        about: All fields that the platform returns and that a refresh does not change.
        progress: The final progress of the last refresh.
        refreshed_at: The end of the last successful refresh.
        refreshes: The number of refreshes.
    """

    about: dict[str, Any]
    progress: int = 100
    refreshed_at: datetime = datetime(2020, 1, 10, 10, 51, 14, tzinfo=UTC)
    refresh: Refresh | None = None
    refreshes: int = 0
    value_column: str = "tag_value"
    """The column with the values of a tag."""

    @property
    def name(self) -> str:
        """The name. It differs from the display name."""
        return str(self.about["clusterName"])

    def start_refresh(self, plan: StagePlan, now_s: float) -> None:
        """Starts a refresh, unless one is running."""
        if self.refresh is None:
            self.refresh = Refresh(plan, now_s)
            self.refreshes += 1

    def progress_at(self, now_s: float, hold_stage: str | None) -> tuple[int, JobState]:
        """Returns the progress that the platform reports at this time, and the state of the refresh."""
        if self.refresh is None:
            return self.progress, "finished" if self.progress == 100 else "failed"
        plan = self.refresh.plan
        stage = plan.stage(now_s - self.refresh.started_s, hold_stage)
        state = plan.state_of(stage)
        if state != "running":
            self._end(int(stage))
        return (self.progress if stage == _BEFORE else int(stage)), state

    def _end(self, progress: int) -> None:
        self.refresh = None
        self.progress = progress
        if progress == 100:
            # Times have whole seconds, and a simulated refresh can be shorter than one second.
            self.refreshed_at = max(datetime.now(UTC), self.refreshed_at + timedelta(seconds=1))

    def detail(self, progress: int) -> dict[str, Any]:
        """Returns the cluster in the platform's form."""
        return {**self.about, "progress": progress, "refreshTime": f"{self.refreshed_at:%Y-%m-%d %H:%M:%S}"}


@dataclass(slots=True)
class ClusterStore:
    """All clusters and tags."""

    next_id: int = 1889
    expired_tasks: set[str] = field(default_factory=set)
    _clusters: dict[int, Cluster] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Cluster]:
        return iter(tuple(self._clusters.values()))

    def add(self, **about: Any) -> Cluster:
        """Adds a cluster. It gets a new id unless the fields have one."""
        if "id" not in about:
            about["id"] = self.next_id
            self.next_id += 1
        cluster = Cluster(about)
        self._clusters[about["id"]] = cluster
        return cluster

    def find(self, project: str, *, cluster_id: str | None = None, name: str | None = None) -> Cluster | None:
        """Returns the cluster with this id or name."""
        for cluster in self:
            matches = str(cluster.about["id"]) == cluster_id if cluster_id is not None else cluster.name == name
            if matches and str(cluster.about["projectId"]) == project:
                return cluster
        return None

    def remove(self, cluster: Cluster) -> None:
        """Removes a cluster."""
        del self._clusters[cluster.about["id"]]


def new_store() -> ClusterStore:
    """Returns the initial clusters and tags."""
    store = ClusterStore()
    _add(store, 970, "recent_7_days_consume", "recent_7_days_consume", "cluster_by_static_condition", usersNum=200)
    _add(store, 905, "xuzz_ces", "用户数", "cluster_by_static_condition", usersNum=4665)
    _add(store, 183, "test", "test", "cluster_by_dynamic_condition", usersNum=5603)
    _add(store, 1204, "o'brien", "名字里有引号", "cluster_by_dynamic_sql", usersNum=3)
    _add(store, 971, "tag_20200615_1", "标签_20200615_1", "tag_by_static_condition", usersNum=1200)
    _add(store, 972, "tag_first_os", "首次系统", "tag_by_dynamic_condition", usersNum=800)
    _add(store, 973, "tag_vip_level", "会员等级", "tag_by_dynamic_sql", usersNum=800).value_column = "tag_value_num"
    _add(store, 974, "tag_last_pay", "最近付费", "tag_by_dynamic_sql", usersNum=800).value_column = "tag_value_tm"
    _add(store, 1600, "cohort_uploaded", "上传的账号", "cluster_by_import", usersNum=90, mainColumnName="#account_id")
    return store


def _add(store: ClusterStore, cluster_id: int, name: str, shown: str, kind: str, **about: Any) -> Cluster:
    of_tag = kind.startswith("tag_")
    return store.add(
        id=cluster_id,
        projectId=PROJECT,
        clusterName=name,
        displayName=shown,
        clusterType=kind,
        clusterCatalog="catalog_tag" if of_tag else "catalog_cluster",
        userId=13,
        userName="自动化测试__sync",
        remarks="",
        status=1,
        **{"userTagDef" if of_tag else "userClusterDef": {}},
        **{"mainColumnName": "", **about},
    )
