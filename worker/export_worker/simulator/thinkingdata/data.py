"""What the played ThinkingData holds: the clusters and tags of its document, and how a refresh passes."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from export_worker.simulator.faults import Standing
from export_worker.simulator.jobs import Course

PROJECT = 102

_BEFORE = "BEFORE"
"""A refresh that was asked for and has not begun: its cluster still shows how the last one ended."""
TO_DONE = Course((_BEFORE, "0", "40", "80", "100"), 0.0, succeeds=True)
TO_FAILED = Course((_BEFORE, "0", "40", "-1"), 0.0, succeeds=False)
DONE_AT_ONCE = Course(("100",), 0.0, succeeds=True)
FAILED_AT_ONCE = Course(("-1",), 0.0, succeeds=False)


def paced(course: Course, stage_s: float) -> Course:
    """The same course, so many seconds in each stage."""
    return replace(course, stage_s=stage_s)


@dataclass(slots=True)
class Refresh:
    """One refresh under way."""

    course: Course
    begun_s: float


@dataclass(slots=True)
class Cluster:
    """A cluster or tag.

    Args:
        about: Everything that the platform tells of it and that no refresh changes.
        progress: How the last refresh ended.
        refreshed_at: When the last good one did.
        refreshes: How many there were.
    """

    about: dict[str, Any]
    progress: int = 100
    refreshed_at: datetime = datetime(2020, 1, 10, 10, 51, 14, tzinfo=UTC)
    refresh: Refresh | None = None
    refreshes: int = 0

    @property
    def name(self) -> str:
        """Its name, which is another than the one that is shown."""
        return str(self.about["clusterName"])

    def begin(self, course: Course, now_s: float) -> None:
        """Refresh it; one that is under way goes on."""
        if self.refresh is None:
            self.refresh = Refresh(course, now_s)
            self.refreshes += 1

    def look(self, now_s: float, hold_stage: str | None) -> tuple[int, Standing]:
        """The progress that shows now, and where the refresh stands."""
        if self.refresh is None:
            return self.progress, "finished" if self.progress == 100 else "failed"
        course = self.refresh.course
        stage = course.stage(now_s - self.refresh.begun_s, hold_stage)
        standing = course.standing(stage)
        if standing != "running":
            self._end(int(stage))
        return (self.progress if stage == _BEFORE else int(stage)), standing

    def _end(self, progress: int) -> None:
        self.refresh = None
        self.progress = progress
        if progress == 100:
            # Times have whole seconds; refreshes of a simulator may not last one.
            self.refreshed_at = max(datetime.now(UTC), self.refreshed_at + timedelta(seconds=1))

    def detail(self, progress: int) -> dict[str, Any]:
        """As the platform tells it."""
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
        """Keep a new one; it gets an id unless it has one."""
        if "id" not in about:
            about["id"] = self.next_id
            self.next_id += 1
        cluster = Cluster(about)
        self._clusters[about["id"]] = cluster
        return cluster

    def find(self, project: str, *, cluster_id: str | None = None, name: str | None = None) -> Cluster | None:
        """The one with this id or name."""
        for cluster in self:
            same = str(cluster.about["id"]) == cluster_id if cluster_id is not None else cluster.name == name
            if same and str(cluster.about["projectId"]) == project:
                return cluster
        return None

    def remove(self, cluster: Cluster) -> None:
        """Forget it."""
        del self._clusters[cluster.about["id"]]


def new_store() -> ClusterStore:
    """What a fresh platform holds."""
    store = ClusterStore()
    _add(store, 970, "recent_7_days_consume", "recent_7_days_consume", "cluster_by_static_condition", users=200)
    _add(store, 905, "xuzz_ces", "用户数", "cluster_by_static_condition", users=4665)
    _add(store, 183, "test", "test", "cluster_by_dynamic_condition", users=5603)
    _add(store, 1204, "o'brien", "名字里有引号", "cluster_by_dynamic_sql", users=3)
    _add(store, 971, "tag_20200615_1", "标签_20200615_1", "tag_by_static_condition", users=1200)
    _add(store, 972, "tag_first_os", "首次系统", "tag_by_dynamic_condition", users=800)
    return store


def _add(store: ClusterStore, cluster_id: int, name: str, shown: str, kind: str, *, users: int) -> None:
    of_tag = kind.startswith("tag_")
    store.add(
        id=cluster_id,
        projectId=PROJECT,
        clusterName=name,
        displayName=shown,
        clusterType=kind,
        clusterCatalog="catalog_tag" if of_tag else "catalog_cluster",
        userId=13,
        userName="自动化测试__sync",
        usersNum=users,
        remarks="",
        status=1,
        **{"userTagDef" if of_tag else "userClusterDef": {}},
    )
