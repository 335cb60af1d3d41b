"""Both examples of GrowingIO's segment profile document: the driver sends these requests and reads these responses."""

from dataclasses import asdict
from typing import Any

import pytest

from export_worker.contract.request import ExportKind, GrowingioUserTagUsers
from support.drivers import growingio_rest_driver
from support.golden_files import check_golden
from support.growingio_rest_sample import FILE, JOB_ID, ODD_FILE, RESULT, SEGMENT, SUBMIT, SUBMITTED, URI
from support.scripted_server import CANARY, ScriptedServer, Seen, json_replied, replied

WITH_COLUMNS = SEGMENT.model_copy(
    update={
        "properties": ["ids_$basic_userId", "usr_gender", "tag_rfm"],
        "file_format": "csv",
        "csv_header_type": "key",
    }
)
WITHOUT_COLUMNS = SEGMENT.model_copy(update={"properties": []})
FINISHED = {"stage": "FINISH", "uris": [URI]}


def document_of(seen: Seen, response: Any, read: Any) -> dict[str, Any]:
    """Returns a call in the form of the golden files, with the headers of the document and without the token."""
    path, _, query = seen.target.partition("?")
    headers = {name: seen.headers[name] for name in ("Authorization", "Content-Type") if name in seen.headers}
    assert headers["Authorization"] == f"Bearer {CANARY}"
    return {
        "method": seen.method,
        "path": path,
        "query": query,
        "headers": {**headers, "Authorization": "Bearer <token>"},
        "body": seen.json if seen.body else None,
        "answer": response,
        "read": read,
    }


@pytest.mark.parametrize(
    ("name", "export"), [("submit-with-columns", WITH_COLUMNS), ("submit-without-columns", WITHOUT_COLUMNS)]
)
async def test_submit_request_matches_document(name: str, export: ExportKind) -> None:
    async with ScriptedServer() as server, growingio_rest_driver(server) as rest:
        server.on(SUBMIT, json_replied(SUBMITTED))
        submitted = await rest.submit(export)
    [seen] = server.seen
    assert "language" not in seen.headers
    check_golden(f"growingio-rest/{name}", document_of(seen, SUBMITTED, asdict(submitted)))


async def test_submit_of_a_tag_beside_spaces_matches_document() -> None:
    export = GrowingioUserTagUsers(project_id="WlGk4Daj", tag_key="tag_rfm", in_space=False)
    async with ScriptedServer() as server, growingio_rest_driver(server, space_id="VKwkPmqX") as rest:
        server.on("/v1/api/projects/WlGk4Daj/user_tags/tag_rfm/export_jobs", json_replied(SUBMITTED))
        submitted = await rest.submit(export)
    [seen] = server.seen
    check_golden("growingio-rest/submit-tag-of-project", document_of(seen, SUBMITTED, asdict(submitted)))


async def test_poll_request_matches_document() -> None:
    async with ScriptedServer() as server, growingio_rest_driver(server) as rest:
        server.on(RESULT, json_replied(FINISHED))
        polled = await rest.poll(SEGMENT, JOB_ID)
    [seen] = server.seen
    check_golden(
        "growingio-rest/job-result", document_of(seen, FINISHED, {"is": type(polled).__name__, **asdict(polled)})
    )


async def test_download_request_matches_document() -> None:
    async with ScriptedServer() as server, growingio_rest_driver(server) as rest:
        server.on("/download", replied(ODD_FILE, content_type="text/csv"))
        async with rest.open_result(SEGMENT, FILE) as download:
            read = b"".join([chunk async for chunk in download.chunks()])
            assert (download.total_bytes, download.content_type) == (len(ODD_FILE.encode()), "text/csv")
    [seen] = server.seen
    check_golden("growingio-rest/download", document_of(seen, ODD_FILE, read.decode()))
