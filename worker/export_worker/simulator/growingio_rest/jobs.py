"""Makes the jobs of GrowingIO's REST API: ids, names, paths and files as the platform has them."""

from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Literal
from urllib.parse import quote

from export_worker.simulator.files import FileSpec
from export_worker.simulator.growingio.jobs import DEFAULT_CHARSET, course_of, hash_id, job_name
from export_worker.simulator.growingio_rest.data import NAMES
from export_worker.simulator.jobs import Job, JobFile
from export_worker.simulator.line_formats import Layout
from export_worker.simulator.scenario import Fault, Scenario
from export_worker.simulator.world import World

PROPERTIES_MAX = 60

Kind = Literal["segment_profiles", "user_tags"]


@dataclass(frozen=True, slots=True)
class Order:
    """What a submit asks for.

    Args:
        project: None for the whole data centre.
        entity: The segment or tag.
        body: As it came.
    """

    kind: Kind
    project: str | None
    entity: dict[str, Any]
    body: dict[str, Any]

    @property
    def call(self) -> str:
        """As the jobs are listed by."""
        return f"{self.kind}/export_jobs"

    @property
    def arguments(self) -> dict[str, Any]:
        """What tells this order from others."""
        return {"project": self.project, "key": self.entity["key"], **self.body}


def problem_of(body: Any) -> str | None:
    """What is wrong with the body of a submit; None when nothing is."""
    if not isinstance(body, dict) or not body.keys() <= {"properties", "fileFormat", "csvHeaderType"}:
        return "unknown fields"
    properties = body.get("properties", [])
    if not isinstance(properties, list) or not all(isinstance(item, str) for item in properties):
        return "properties is no list"
    if len(properties) > PROPERTIES_MAX:
        return "too many properties"
    right = body.get("fileFormat", "csv") in {"csv", "json"} and body.get("csvHeaderType", "key") in {"key", "name"}
    return None if right else "unknown fileFormat or csvHeaderType"


def new_job(world: World, order: Order, fault: Fault | None) -> Job:
    """Accept an order and keep its job."""
    number = len(world.jobs)
    created_at = datetime.now(UTC)
    name = job_name("DES", created_at, number)
    job_id = hash_id(sha256(f"{world.run_id}/{number}".encode()).hexdigest())
    job = Job(
        job_id=job_id,
        short_id=job_id,
        kind=order.kind,
        call=order.call,
        arguments=order.arguments,
        name=name,
        charset=DEFAULT_CHARSET,
        files=tuple(_file(world, order, name, index) for index in range(world.scenario.files)),
        course=course_of(world.scenario, fault),
        created_s=world.clock(),
        created_at=created_at,
    )
    world.jobs.add(job)
    return job


def _file(world: World, order: Order, name: str, index: int) -> JobFile:
    scenario, suffix = world.scenario, order.body.get("fileFormat", "csv")
    title = scenario.title or f"{order.entity['name']}_{datetime.now(UTC):%Y-%m-%d}_UserList"
    base_name = f"{title}.{suffix}" if index == 0 else f"{title}({index}).{suffix}"
    return JobFile(
        uri=quote(f"/jobs/results/{name}/{base_name}", safe=""),
        spec=FileSpec(
            seed=f"{world.settings.seed}/{order.kind}/{order.entity['key']}/{index}",
            columns=_columns(order.body),
            rows=scenario.rows,
            file_bytes=scenario.file_bytes,
            bom=scenario.bom,
            layout=_layout(scenario, suffix),
        ),
    )


def _columns(body: dict[str, Any]) -> tuple[str, ...]:
    properties = body.get("properties", [])
    if body.get("csvHeaderType") == "name" and body.get("fileFormat", "csv") == "csv":
        properties = [NAMES.get(key, key) for key in properties]
    return ("gio_id", *properties)


def _layout(scenario: Scenario, suffix: str) -> Layout:
    if suffix == "json":
        return "gio_json"
    return "oddly_quoted_csv" if scenario.odd_quotes else "quoted_csv"
