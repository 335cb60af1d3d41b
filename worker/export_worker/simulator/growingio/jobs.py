"""Creates GrowingIO's jobs, with ids, names, paths and files in the platform's form."""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from string import ascii_letters, digits
from typing import Any, Literal
from uuid import UUID

from graphql import GraphQLError

from export_worker.simulator.files import FileSpec, codec_of
from export_worker.simulator.jobs import Job, JobFile, StagePlan
from export_worker.simulator.scenario import Fault, Scenario
from export_worker.simulator.world import World

Kind = Literal["tag", "segment", "analysis"]

FINISH = "FINISH"
ERROR = "ERROR"
TO_FINISH = ("NONE", "READY", "RUNNING", "DATA_READY", FINISH)
TO_ERROR = ("NONE", "READY", "RUNNING", ERROR)

DEFAULT_CHARSET = "UTF-8"
"""The platform's own default is not documented."""

_ID_TYPES: dict[Kind, str] = {"tag": "TagUserExportJobDto", "segment": "SegmentUserExportJobDto", "analysis": "CHARTS"}
"""First part of a job id. All analyses use CHARTS, because the known id of a funnel job has it."""

_NAME_PREFIXES: dict[Kind, str | None] = {"tag": "DET", "segment": "DES", "analysis": None}

_ALPHABET = digits + ascii_letters


@dataclass(frozen=True, slots=True)
class JobRequest:
    """The job that a submit asks for.

    Args:
        subject: The id of the exported entity. Files of different subjects have different values.
        call: The name of the mutation.
        arguments: The arguments as received.
        columns: The header of the files.
        title: The base name of the files; None if the platform chooses it.
    """

    kind: Kind
    subject: str
    call: str
    arguments: dict[str, Any]
    columns: Sequence[str]
    charset: str | None
    title: str | None = None


def new_job(world: World, job_request: JobRequest, fault: Fault | None) -> Job:
    """Creates a job and adds it to the world.

    Raises:
        GraphQLError: The simulator does not support the charset.
    """
    number = len(world.jobs)
    token = sha256(f"{world.run_id}/{number}".encode()).hexdigest()
    created_at = datetime.now(UTC)
    prefix = _NAME_PREFIXES[job_request.kind]
    name = job_name(prefix, created_at, number) if prefix is not None else None
    job = Job(
        job_id=_job_id(job_request.kind, token),
        short_id=hash_id(token if job_request.kind != "analysis" else f"{token}/result"),
        kind=job_request.kind,
        call=job_request.call,
        arguments=job_request.arguments,
        name=name,
        charset=job_request.charset or DEFAULT_CHARSET,
        files=tuple(_files(world, job_request, name, token)),
        plan=plan_of(world.scenario, fault),
        created_s=world.clock(),
        created_at=created_at,
    )
    world.jobs.add(job)
    return job


def plan_of(scenario: Scenario, fault: Fault | None) -> StagePlan:
    """Returns the stages of a job whose submit has this fault."""
    match fault.fault if fault is not None else None:
        case "finish_at_submit":
            return StagePlan((FINISH,), 0.0, succeeds=True)
        case "error_at_submit":
            return StagePlan((ERROR,), 0.0, succeeds=False)
        case "error_stage":
            return StagePlan(TO_ERROR, scenario.stage_s, succeeds=False)
        case _:
            return StagePlan(TO_FINISH, scenario.stage_s, succeeds=True)


def _job_id(kind: Kind, token: str) -> str:
    """Returns unpadded base64 of the type and a hash: 8 letters or digits, or 32 hexadecimal digits for an analysis."""
    tail = token[:32] if kind == "analysis" else hash_id(token)
    return b64encode(f"{_ID_TYPES[kind]}:{tail}".encode()).decode().rstrip("=")


def hash_id(text: str) -> str:
    """Returns 8 letters or digits that are derived from the text."""
    return "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in sha256(text.encode()).digest()[:8])


def job_name(prefix: str, created_at: datetime, number: int) -> str:
    """Returns a job name: `DET` or `DES`, the minute, and the nanoseconds of the UTC day.

    On the platform the last three digits are zeros. Here they count the jobs, so that two jobs of one microsecond have
    different names.
    """
    midnight = created_at.replace(hour=0, minute=0, second=0, microsecond=0)
    since = created_at - midnight
    day_ns = (since.seconds * 1_000_000 + since.microseconds) * 1000 + number % 1000
    return f"{prefix}-{created_at:%Y%m%d%H%M}-{day_ns}"


def _files(world: World, job_request: JobRequest, name: str | None, token: str) -> list[JobFile]:
    codec = codec_of(job_request.charset or DEFAULT_CHARSET)
    if codec is None:
        raise GraphQLError(f"charset {job_request.charset} is not supported")
    return [
        JobFile(
            uri=_uri(job_request.kind, name, _title(world.scenario, job_request, token, index)),
            spec=FileSpec(
                seed=f"{world.settings.seed}/{job_request.kind}/{job_request.subject}/{index}",
                columns=tuple(job_request.columns),
                codec=codec,
                rows=world.scenario.rows,
                file_bytes=world.scenario.file_bytes,
                bom=world.scenario.bom,
            ),
        )
        for index in range(world.scenario.files)
    ]


def _title(scenario: Scenario, job_request: JobRequest, token: str, index: int) -> str:
    """Returns the base name without suffix: from the scenario, from the request, or a UUID as for the files of tags."""
    title = scenario.title or job_request.title
    if title is None:
        return str(UUID(bytes=sha256(f"{token}/{index}".encode()).digest()[:16], version=4))
    return title if index == 0 else f"{title}({index})"


def _uri(kind: Kind, name: str | None, title: str) -> str:
    """Returns the path, not percent-encoded. Different analysis jobs have the same path."""
    if kind == "analysis":
        return f"/jobs-results/downloads/{title}.csv"
    return f"/jobs/results/{name}/{title}.csv"
