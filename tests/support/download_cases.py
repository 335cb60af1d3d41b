"""Downloads as cases, and a GrowingIO server that sends each of them over a socket, byte by byte as it is written here.

The server answers the submit and the polls of an export, and then sends the raw response of the case that the export
names. So a case can violate HTTP.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any

from export_worker.contract.status import Phase, Status
from support import worker_site
from support.worker_site import Site

NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
CSV = "Content-Type: text/csv"
SEALED = "_SUCCESS"
Check = Callable[[bytes], bool]


@dataclass(frozen=True)
class Case:
    """One download.

    Args:
        name: What is special about it. Unique within one run.
        body: The bytes after the head, or a whole response if `raw` is set.
        head: Header fields, each `Name: value`. The framing is added unless it is there.
        ask: What the request asks for, by the path of the field, such as `output.charset`.
        file_name: The file that the platform announces.
        lands: The bytes that are stored, or a check of them. None: nothing may be stored, and the export fails.
        or_fails: The export may fail as well.
        says: A text of the message, if the export fails.
        says_rows: The number of rows in the manifest. -1: it is not checked.
        raw: The body is the whole response.
        ranges: The server sends the rest of the body if it is asked for that.
        answer_head: Further head fields of the platform's answers to the submit and the polls.
        answer_body: Changes the bodies of these answers.
    """

    name: str
    body: bytes = b""
    head: Sequence[str | bytes] = (CSV,)
    ask: Mapping[str, Any] = field(default_factory=dict)
    file_name: str = "users.csv"
    lands: bytes | Check | None = None
    or_fails: bool = False
    says: str = ""
    says_rows: int | None = -1
    raw: bool = False
    ranges: bool = False
    answer_head: Sequence[str] = ()
    answer_body: Callable[[bytes], bytes] = bytes

    def response(self) -> bytes:
        """Returns the response over the socket. A response without framing ends with the connection."""
        if self.raw:
            return self.body
        fields = [line.encode() if isinstance(line, str) else line for line in self.head]
        names = {line.partition(b":")[0].lower() for line in fields}
        if not names & {b"content-length", b"transfer-encoding", b"x-no-framing"}:
            fields.append(b"Content-Length: %d" % len(self.body))
        return b"\r\n".join([b"HTTP/1.1 200 OK", *fields, b"Connection: close", b"", self.body])

    def rest(self, request: bytes) -> bytes:
        """Returns the response to a request that may name a range."""
        asked = re.search(rb"(?i)\r\nrange: bytes=([0-9]+)-", request) if self.ranges else None
        if asked is None:
            return self.response()
        first, total = int(asked[1]), len(self.body)
        head = (*self.head, f"Content-Range: bytes {first}-{total - 1}/{total}")
        return replace(self, body=self.body[first:], head=head).response().replace(b"200 OK", b"206 Rest", 1)

    def export(self, number: int) -> dict[str, Any]:
        """Returns the request of the export."""
        kind = {"kind": "growingio.segment_users", "project_id": "WlGk4Daj", "segment_id": f"{number:08d}"}
        request: dict[str, Any] = {"connection": "gio", "export": kind}
        for path, value in self.ask.items():
            *parents, last = path.split(".")
            reduce(lambda tree, name: tree.setdefault(name, {}), parents, request)[last] = value
        return request


def chunked(*pieces: bytes) -> bytes:
    """Returns a body in chunks."""
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (*filter(None, pieces), b""))


def redirect(location: bytes) -> bytes:
    """Returns a response that leads elsewhere."""
    return b"HTTP/1.1 302 Found\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % location


@asynccontextmanager
async def platform_of(cases: Sequence[Case]) -> AsyncIterator[str]:
    """Serves the cases, and yields the URL of the platform. Export number n gets the nth case."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                target = head.split(b" ", 2)[1].decode()
                if target != "/graphql":
                    number = _number_of(target)
                    writer.write(NOT_FOUND if number is None else cases[number].rest(head))
                    await writer.drain()
                    break
                writer.write(_answer(cases, await _json_body(reader, head)))
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def _json_body(reader: asyncio.StreamReader, head: bytes) -> Any:
    lines = (line.partition(b":") for line in head.lower().split(b"\r\n"))
    length = next(int(value) for name, _, value in lines if name == b"content-length")
    return json.loads(await reader.readexactly(length))


def _answer(cases: Sequence[Case], call: Mapping[str, Any]) -> bytes:
    """Returns the response to a submit or a poll. The id of an operation is the number of its case."""
    variables = call["variables"]
    number = variables.get("segmentId") or variables.get("id")
    if number is None:
        return _json_response({"data": {"projects": []}})  # the call that shows whether the platform is down
    case = cases[int(number)]
    job: dict[str, Any] = {"id": number, "stage": "FINISH", "uris": [f"/exports/{number}/{case.file_name}"]}
    if "segmentId" in variables:
        job = {"id": number, "stage": "RUNNING", "error": None}
    name = "submitSegmentUserExportJob" if "segmentId" in variables else "jobResult"
    return _json_response({"data": {name: job}}, case)


def _number_of(target: str) -> int | None:
    """Returns the number of the export whose file a request names; None if it names none."""
    found = re.fullmatch(r"/download\?file=/exports/(\d{8})/.*", target)
    return None if found is None else int(found[1])


def _json_response(value: Any, case: Case | None = None) -> bytes:
    body = json.dumps(value).encode()
    body, more = (body, ()) if case is None else (case.answer_body(body), case.answer_head)
    head = ["HTTP/1.1 200 OK", "Content-Type: application/json", f"Content-Length: {len(body)}", *more, "", ""]
    return "\r\n".join(head).encode() + body


@dataclass(frozen=True)
class Landed:
    """What came of one case.

    Args:
        status: The last status of its export.
        objects: The objects below its prefix, by file name. The manifest and `_SUCCESS` are among them.
    """

    status: Status
    objects: Mapping[str, bytes]

    @property
    def files(self) -> list[bytes]:
        """The contents of the exported files."""
        return [body for name, body in self.objects.items() if not name.startswith("_")]


async def run(site: Site, cases: Sequence[Case]) -> list[str]:
    """Exports all cases with one worker. Returns a line for each case whose result is not right."""
    landed = await _exported(site, cases)
    wrong = ((case, _wrong(case, found)) for case, found in zip(cases, landed, strict=True))
    return [f"{case.name}: {what}" for case, what in wrong if what]


async def _exported(site: Site, cases: Sequence[Case]) -> list[Landed]:
    async with platform_of(cases) as url:
        site.platform_url = url
        async with worker_site.worker(site), site.queue() as queue:
            accepted = [await queue.enqueue(json.dumps(case.export(number))) for number, case in enumerate(cases)]
            statuses = [await queue.wait(each.export_id, 60) for each in accepted]
    objects = await asyncio.to_thread(site.objects)
    return [Landed(status, _below(objects, status.export_id)) for status in statuses]


def _below(objects: Mapping[str, bytes], export_id: str) -> dict[str, bytes]:
    return {key.rsplit("/", 1)[1]: body for key, body in objects.items() if f"/{export_id}/" in key}


def _wrong(case: Case, found: Landed) -> str:
    """Returns what is not right about the result of a case; empty if it is right."""
    status = found.status
    if status.counters.submits > 1:
        return f"it was submitted {status.counters.submits} times"
    if status.phase is Phase.FAILED:
        return _wrong_failure(case, found)
    if status.phase is not Phase.SUCCEEDED or SEALED not in found.objects:
        return f"it is {status.phase}"
    if case.lands is None:
        return f"it succeeded with {[body[:200] for body in found.files]}"
    [body] = found.files
    right = case.lands(body) if callable(case.lands) else body == case.lands
    if not right:
        return f"it landed as {body[:200]!r}"
    rows = json.loads(found.objects["_manifest.json"])["objects"][0].get("rows")
    return "" if case.says_rows in {-1, rows} else f"the manifest says {rows} rows"


def _wrong_failure(case: Case, found: Landed) -> str:
    error = found.status.error
    if error is None:
        return "it failed without an error"
    if found.objects:
        return f"it failed, and these objects are left: {sorted(found.objects)}"
    if case.lands is not None and not case.or_fails:
        return f"it failed with {error.code}: {error.message}"
    if error.code in {"internal_error", "worker_died"} or "Traceback" in error.message:
        return f"it failed with {error.code}: {error.message}"
    return "" if case.says in error.message else f"the message says: {error.message}"
