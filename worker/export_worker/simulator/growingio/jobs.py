"""Makes GrowingIO's jobs: ids, names, paths and files as the platform has them."""

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
from export_worker.simulator.jobs import Course, Job, JobFile
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
"""First part of a job's id. Every analysis says CHARTS: the known id of a funnel's job does."""

_NAME_PREFIXES: dict[Kind, str | None] = {"tag": "DET", "segment": "DES", "analysis": None}

_ALPHABET = digits + ascii_letters


@dataclass(frozen=True, slots=True)
class Order:
    """What a submit asks for.

    Args:
        subject: Id of what is exported; files of different subjects differ.
        call: The mutation.
        arguments: As they came.
        columns: Header of the files.
        title: Base name of the files; None lets the platform choose.
    """

    kind: Kind
    subject: str
    call: str
    arguments: dict[str, Any]
    columns: Sequence[str]
    charset: str | None
    title: str | None = None


def new_job(world: World, order: Order, fault: Fault | None) -> Job:
    """Accept an order and keep its job.

    Raises:
        GraphQLError: The charset is none that can be written.
    """
    number = len(world.jobs)
    token = sha256(f"{world.run_id}/{number}".encode()).hexdigest()
    created_at = datetime.now(UTC)
    prefix = _NAME_PREFIXES[order.kind]
    name = job_name(prefix, created_at, number) if prefix is not None else None
    job = Job(
        job_id=_job_id(order.kind, token),
        short_id=hash_id(token if order.kind != "analysis" else f"{token}/result"),
        kind=order.kind,
        call=order.call,
        arguments=order.arguments,
        name=name,
        charset=order.charset or DEFAULT_CHARSET,
        files=tuple(_files(world, order, name, token)),
        course=course_of(world.scenario, fault),
        created_s=world.clock(),
        created_at=created_at,
    )
    world.jobs.add(job)
    return job


def course_of(scenario: Scenario, fault: Fault | None) -> Course:
    """How a job goes that was submitted under this fault."""
    match fault.fault if fault is not None else None:
        case "finish_at_submit":
            return Course((FINISH,), 0.0, succeeds=True)
        case "error_at_submit":
            return Course((ERROR,), 0.0, succeeds=False)
        case "error_stage":
            return Course(TO_ERROR, scenario.stage_s, succeeds=False)
        case _:
            return Course(TO_FINISH, scenario.stage_s, succeeds=True)


def _job_id(kind: Kind, token: str) -> str:
    """Base64 without padding of the type and a hash: 8 letters or digits, or 32 hexadecimal digits."""
    tail = token[:32] if kind == "analysis" else hash_id(token)
    return b64encode(f"{_ID_TYPES[kind]}:{tail}".encode()).decode().rstrip("=")


def hash_id(text: str) -> str:
    """8 letters or digits."""
    return "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in sha256(text.encode()).digest()[:8])


def job_name(prefix: str, created_at: datetime, number: int) -> str:
    """`DET` or `DES`, the minute, and nanoseconds of the UTC day.

    The platform's last three digits are zeros. Here they count the jobs, so that two of one microsecond differ.
    """
    midnight = created_at.replace(hour=0, minute=0, second=0, microsecond=0)
    since = created_at - midnight
    day_ns = (since.seconds * 1_000_000 + since.microseconds) * 1000 + number % 1000
    return f"{prefix}-{created_at:%Y%m%d%H%M}-{day_ns}"


def _files(world: World, order: Order, name: str | None, token: str) -> list[JobFile]:
    codec = codec_of(order.charset or DEFAULT_CHARSET)
    if codec is None:
        raise GraphQLError(f"charset {order.charset} is not supported")
    return [
        JobFile(
            uri=_uri(order.kind, name, _title(world.scenario, order, token, index)),
            spec=FileSpec(
                seed=f"{world.settings.seed}/{order.kind}/{order.subject}/{index}",
                columns=tuple(order.columns),
                codec=codec,
                rows=world.scenario.rows,
                file_bytes=world.scenario.file_bytes,
                bom=world.scenario.bom,
            ),
        )
        for index in range(world.scenario.files)
    ]


def _title(scenario: Scenario, order: Order, token: str, index: int) -> str:
    """Base name without suffix: as told, or as the platform makes it; a tag's file is named by a UUID."""
    title = scenario.title or order.title
    if title is None:
        return str(UUID(bytes=sha256(f"{token}/{index}".encode()).digest()[:16], version=4))
    return title if index == 0 else f"{title}({index})"


def _uri(kind: Kind, name: str | None, title: str) -> str:
    """Raw, not percent-encoded. Different analysis jobs share a path."""
    if kind == "analysis":
        return f"/jobs-results/downloads/{title}.csv"
    return f"/jobs/results/{name}/{title}.csv"
