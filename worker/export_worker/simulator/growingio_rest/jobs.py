"""Creates the jobs of GrowingIO's REST API, with ids, names, paths and files in the platform's form."""

from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Literal
from urllib.parse import quote

from export_worker.simulator.files import FileSpec
from export_worker.simulator.growingio.jobs import DEFAULT_CHARSET, hash_id, job_name, plan_of
from export_worker.simulator.growingio_rest.data import NAMES
from export_worker.simulator.jobs import Job, JobFile
from export_worker.simulator.line_formats import Layout
from export_worker.simulator.scenario import Fault, Scenario
from export_worker.simulator.world import World

PROPERTIES_MAX = 60

Kind = Literal["segment_profiles", "user_tags"]


@dataclass(frozen=True, slots=True)
class JobRequest:
    """The job that a submit asks for.

    Args:
        project: The project id; None for the whole data centre.
        entity: The segment or tag.
        body: The body as received.
    """

    kind: Kind
    project: str | None
    entity: dict[str, Any]
    body: dict[str, Any]

    @property
    def call(self) -> str:
        """The name of the call in the control API."""
        return f"{self.kind}/export_jobs"

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments in the control API. Requests for different jobs have different arguments."""
        return {"project": self.project, "key": self.entity["key"], **self.body}


def error_in(body: Any) -> str | None:
    """Returns the error in the body of a submit; None if the body is valid."""
    if not isinstance(body, dict) or not body.keys() <= {"properties", "fileFormat", "csvHeaderType"}:
        return "unknown fields"
    properties = body.get("properties", [])
    if not isinstance(properties, list) or not all(isinstance(item, str) for item in properties):
        return "properties is not a list of strings"
    if len(properties) > PROPERTIES_MAX:
        return "too many properties"
    known = body.get("fileFormat", "csv") in {"csv", "json"} and body.get("csvHeaderType", "key") in {"key", "name"}
    return None if known else "unknown fileFormat or csvHeaderType"


def new_job(world: World, job_request: JobRequest, fault: Fault | None) -> Job:
    """Creates a job and adds it to the world."""
    number = len(world.jobs)
    created_at = datetime.now(UTC)
    name = job_name("DES", created_at, number)
    job_id = hash_id(sha256(f"{world.run_id}/{number}".encode()).hexdigest())
    job = Job(
        job_id=job_id,
        short_id=job_id,
        kind=job_request.kind,
        call=job_request.call,
        arguments=job_request.arguments,
        name=name,
        charset=DEFAULT_CHARSET,
        files=tuple(_file(world, job_request, name, index) for index in range(world.scenario.files)),
        plan=plan_of(world.scenario, fault),
        created_s=world.clock(),
        created_at=created_at,
    )
    world.jobs.add(job)
    return job


def _file(world: World, job_request: JobRequest, name: str, index: int) -> JobFile:
    scenario, suffix = world.scenario, job_request.body.get("fileFormat", "csv")
    title = scenario.title or f"{job_request.entity['name']}_{datetime.now(UTC):%Y-%m-%d}_UserList"
    base_name = f"{title}.{suffix}" if index == 0 else f"{title}({index}).{suffix}"
    return JobFile(
        uri=quote(f"/jobs/results/{name}/{base_name}", safe=""),
        spec=FileSpec(
            seed=f"{world.settings.seed}/{job_request.kind}/{job_request.entity['key']}/{index}",
            columns=_columns(job_request.body),
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
