"""The GrowingIO REST driver against a scripted server: the requests that it sends, and the results of responses."""

import gzip
from typing import Any

import pytest

from export_worker.contract.request import (
    ExportKind,
    GrowingioSegmentProfileUsers,
    GrowingioUserTagUsers,
    SensorsdataUserGroupUsers,
)
from export_worker.credentials import Redactor
from export_worker.errors import (
    AuthFailedError,
    DownloadInvalidError,
    ErrorCode,
    PlatformError,
    PlatformMalformedError,
    PlatformRefusedError,
    PlatformUnavailableError,
    StepError,
)
from export_worker.lifecycle.observations import OperationFailed, Pending, Polled, Ready, RemoteFile, Submitted
from export_worker.platforms.base import Catalog, Driver, cheap_check
from export_worker.platforms.growingio_rest.driver import GrowingioRestDriver
from export_worker.platforms.operations import Operations
from export_worker.platforms.settings import ConnectionSettings
from support.drivers import growingio_rest_driver
from support.growingio_rest_sample import FILE, JOB_ID, RESULT, SEGMENT, SUBMIT, SUBMITTED, URI
from support.scripted_server import CANARY, Reply, ScriptedServer, echoed, json_replied, replied


async def submit(*replies: Reply, export: ExportKind = SEGMENT) -> Submitted:
    async with ScriptedServer() as server, growingio_rest_driver(server) as rest:
        server.on(SUBMIT, *replies)
        return await rest.submit(export)


async def poll(*replies: Reply) -> Polled:
    async with ScriptedServer() as server, growingio_rest_driver(server) as rest:
        server.on(RESULT, *replies)
        return await rest.poll(SEGMENT, JOB_ID)


async def downloaded(reply: Reply, file: RemoteFile = FILE, **options: Any) -> bytes:
    async with ScriptedServer() as server, growingio_rest_driver(server, **options) as rest:
        server.on("/download", reply)
        async with rest.open_result(SEGMENT, file) as download:
            body = b"".join([chunk async for chunk in download.chunks()])
            assert download.total_bytes in {None, len(body)}
            return body


def test_driver_implements_catalog_and_operations() -> None:
    settings = ConnectionSettings.model_validate(
        {"platform": "growingio-rest", "base_url": "https://op.example.cn", "token": CANARY}
    )
    rest: Driver = GrowingioRestDriver("rest", settings, Redactor())
    assert isinstance(rest, Catalog)
    assert isinstance(rest, Operations)


@pytest.mark.parametrize(
    ("export", "options", "path"),
    [
        (GrowingioUserTagUsers(tag_key="tag_rfm"), {}, "/v1/api/user_tags/tag_rfm/export_jobs"),
        (
            GrowingioUserTagUsers(tag_key="tag_rfm", project_id="WlGk4Daj"),
            {},
            "/v1/api/projects/WlGk4Daj/user_tags/tag_rfm/export_jobs",
        ),
        (
            SEGMENT,
            {"space_id": "VKwkPmqX"},
            "/v1/api/projects/WlGk4Daj/spaces/VKwkPmqX/segment_profiles/seg_51activity/export_jobs",
        ),
        (
            GrowingioUserTagUsers(tag_key="tag_rfm", project_id="WlGk4Daj"),
            {"space_id": "VKwkPmqX"},
            "/v1/api/projects/WlGk4Daj/spaces/VKwkPmqX/user_tags/tag_rfm/export_jobs",
        ),
        (
            GrowingioUserTagUsers(tag_key="tag_rfm"),
            {"space_id": "VKwkPmqX"},
            "/v1/api/user_tags/tag_rfm/export_jobs",
        ),
        (
            GrowingioSegmentProfileUsers(project_id="WlGk4Daj", segment_key="流失{tag_key}&用户;a=b"),
            {},
            SUBMIT.replace("seg_51activity", "%E6%B5%81%E5%A4%B1%7Btag_key%7D%26%E7%94%A8%E6%88%B7%3Ba%3Db"),
        ),
    ],
)
async def test_submit_is_sent_to_path_of_export(export: ExportKind, options: dict[str, Any], path: str) -> None:
    async with ScriptedServer() as server, growingio_rest_driver(server, **options) as rest:
        server.on(path, json_replied(SUBMITTED))
        assert await rest.submit(export) == Submitted(JOB_ID)
    [seen] = server.seen
    assert (seen.method, seen.target, seen.json) == ("POST", path, {})


@pytest.mark.parametrize(
    ("export", "path"),
    [
        (SEGMENT, f"/v1/api/projects/WlGk4Daj/job/result/{JOB_ID}"),
        (GrowingioUserTagUsers(tag_key="tag_rfm", project_id="p2"), f"/v1/api/projects/p2/job/result/{JOB_ID}"),
        (GrowingioUserTagUsers(tag_key="tag_rfm"), RESULT),
    ],
)
async def test_poll_is_sent_to_configured_result_path(export: ExportKind, path: str) -> None:
    template = "/v1/api/projects/{project_id}/job/result/{id}"
    async with ScriptedServer() as server, growingio_rest_driver(server, result_path=template) as rest:
        server.on(path, json_replied({"stage": "RUNNING"}))
        assert await rest.poll(export, JOB_ID) == Pending("RUNNING")
    assert [seen.target for seen in server.seen] == [path]


async def test_language_setting_is_sent_as_header() -> None:
    async with ScriptedServer() as server, growingio_rest_driver(server, language="US") as rest:
        server.on(RESULT, json_replied({"stage": "RUNNING"}))
        await rest.poll(SEGMENT, JOB_ID)
    assert server.seen[0].headers["language"] == "US"


async def test_kind_of_other_platform_is_refused() -> None:
    with pytest.raises(PlatformRefusedError, match=r"sensorsdata\.user_group_users"):
        await submit(export=SensorsdataUserGroupUsers(group_id=1))


async def test_responses_within_list_of_one_are_read() -> None:
    assert await submit(json_replied([SUBMITTED])) == Submitted(JOB_ID)
    assert await poll(json_replied([{"stage": "READY"}])) == Pending("READY")


@pytest.mark.parametrize(
    "job",
    [
        None,
        {},
        {"id": None},
        {"id": ""},
        {"id": 1.5},
        {"id": ".."},
        {"id": "a/../b"},
        {"id": "a\ud800"},
        [],
        [{}, {}],
        1,
    ],
)
async def test_submit_response_without_usable_id_raises_malformed(job: Any) -> None:
    with pytest.raises(PlatformMalformedError, match="has no job id: ") as caught:
        await submit(json_replied(job))
    assert caught.value.retryable
    assert caught.value.unclear


async def test_error_for_missing_id_quotes_masked_response() -> None:
    with pytest.raises(PlatformMalformedError, match=r'has no job id: \{"message": "系统维护中 \*\*\*"\}'):
        await submit(json_replied({"message": f"系统维护中 {CANARY}"}))


@pytest.mark.parametrize("stage", ["NONE", "READY", "RUNNING", "DATA_READY", "TENCENT_PORTRAIT_RUNNING", "done", "x"])
async def test_poll_with_non_terminal_stage_returns_pending(stage: str) -> None:
    assert await poll(json_replied({"stage": stage, "uris": [URI]})) == Pending(stage)


@pytest.mark.parametrize("response", [{}, {"uris": None}, {"uris": []}])
async def test_poll_with_stage_finish_and_no_uris_returns_no_files(response: dict[str, Any]) -> None:
    assert await poll(json_replied({"stage": "FINISH", **response})) == Ready("FINISH", ())


async def test_poll_with_stage_error_returns_operation_failed_with_response() -> None:
    polled = await poll(json_replied({"stage": "ERROR", "message": "no users"}))
    assert polled == OperationFailed(
        "ERROR", 'the platform\'s job ended in ERROR: {"stage": "ERROR", "message": "no users"}'
    )


@pytest.mark.parametrize(
    "response", [None, {}, {"stage": None}, {"stage": 1}, {"stage": ""}, {"stage": "x" * 300}, "text", [], [1], 3]
)
async def test_poll_response_without_stage_raises_malformed(response: Any) -> None:
    with pytest.raises(PlatformMalformedError, match="has no stage"):
        await poll(json_replied(response))


@pytest.mark.parametrize(
    "uris",
    [
        [None],
        [17],
        [""],
        ["relative/"],
        ["https%3A%2F%2Fevil.cn%2Fa.csv"],
        ["%2Fa%2F"],
        ["%2Fa b.csv"],
        ["%2Fa.csv&token=x"],
        ["%2Fa.csv#x"],
        ["%2Fa?b.csv"],
        ["%2Fa\r\n.csv"],
        ["%2F%zz.csv"],
        ["/下载.csv"],
        ["%2F" + "a" * 5000],
        {},
        "%2Fa.csv",
    ],
)
async def test_uri_that_is_no_encoded_path_raises_malformed(uris: Any) -> None:
    with pytest.raises(PlatformMalformedError) as caught:
        await poll(json_replied({"stage": "FINISH", "uris": uris}))
    assert caught.value.retryable


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("%2Fjobs%2Fa%26b%23c%2Bd%20%2541%3Fe.csv", "a&b#c+d %41?e.csv"),
        ("%2fjobs%2fa.csv", "a.csv"),
        ("jobs%2Fresults%2Fa.csv", "a.csv"),
        ("a.csv", "a.csv"),
        ("/jobs/a%2520b.csv", "a%20b.csv"),
        ("%2Fjobs%2Fa%252Fb.csv", "a%2Fb.csv"),
        ("%2Fjobs%2F%FF.csv", "�.csv"),
        ("%2Fjobs%2F..%2F(x)'~*!,;:@%3D$.csv", "(x)'~*!,;:@=$.csv"),
    ],
)
async def test_uri_is_sent_unchanged_and_decoded_once_for_file_name(uri: str, name: str) -> None:
    async with ScriptedServer() as server, growingio_rest_driver(server) as rest:
        server.on(RESULT, json_replied({"stage": "FINISH", "uris": [uri]}))
        server.on("/download", replied("gio_id\n", content_type="text/csv"))
        polled = await rest.poll(SEGMENT, JOB_ID)
        assert polled == Ready("FINISH", (RemoteFile(uri, name),))
        async with rest.open_result(SEGMENT, RemoteFile(uri, name)):
            pass
    assert server.seen[-1].target == f"/download?file={uri}"


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (200, PlatformMalformedError, ErrorCode.PLATFORM_MALFORMED),
        (500, PlatformUnavailableError, ErrorCode.PLATFORM_UNAVAILABLE),
    ],
)
async def test_plain_text_error_raises_with_hint(status: int, kind: type[PlatformError], code: ErrorCode) -> None:
    plain = replied("Internal Server Error", status=status, content_type="text/plain")
    for step in (submit, poll):
        with pytest.raises(
            kind,
            match=r"Internal Server Error \(GrowingIO gives the same response for an unknown project, segment or tag",
        ) as caught:
            await step(plain)
        assert caught.value.code == code


async def test_other_error_raises_without_hint() -> None:
    with pytest.raises(PlatformUnavailableError) as caught:
        await submit(replied("bad gateway", status=502, headers={"Retry-After": "7"}))
    assert "unknown" not in str(caught.value)
    assert caught.value.retry_after_s == 7


async def test_wrong_token_raises_auth_failed() -> None:
    with pytest.raises(AuthFailedError) as caught:
        await submit(json_replied({"error": "unauthorized"}, status=401))
    assert not caught.value.retryable


async def test_secret_in_error_page_is_masked() -> None:
    for step in (submit, poll, downloaded):
        with pytest.raises(PlatformUnavailableError) as caught:
            await step(echoed)
        assert "***" in str(caught.value)
        assert "canary" not in str(caught.value)


JSON_FILE = RemoteFile("%2Fa.json", "a.json")


@pytest.mark.parametrize(
    ("body", "content_type", "file"),
    [
        ("Internal Server Error", "text/plain", FILE),
        ("Internal Server Error", "text/csv", JSON_FILE),
        ('{"code": 50010, "message": "系统维护中"}', "application/json", JSON_FILE),
        ("x" * 4096, "text/csv", FILE),
        ("PAR1 is not found", "text/csv", FILE),
    ],
)
async def test_message_instead_of_user_list_raises_invalid(body: str, content_type: str, file: RemoteFile) -> None:
    with pytest.raises(DownloadInvalidError, match="is a message, not a list of users") as caught:
        await downloaded(replied(body, content_type=content_type), file)
    assert caught.value.retryable


@pytest.mark.parametrize(
    ("body", "file"),
    [
        (b"", FILE),
        (b"\n", FILE),
        (b'{"gio_id": 603542}', JSON_FILE),
        ("\ufeffgio_id\n1\n".encode("utf-16-le"), FILE),
        (b"x" * 4097, FILE),
        (gzip.compress(b"gio_id\n1\n", mtime=0), RemoteFile("%2Fa.csv.gz", "a.csv.gz")),
        (b"\xef\xbb\xbf", FILE),
        ("\ufeff\r\n".encode("utf-16-le"), FILE),
        ("\ufeff".encode("utf-16-be"), FILE),
        (b"[]", JSON_FILE),
        (b"\xef\xbb\xbf[\n]\n", JSON_FILE),
        (b"gio_id\n" + b"1\n" * 200_000, FILE),
    ],
)
async def test_user_list_is_downloaded_unchanged(body: bytes, file: RemoteFile) -> None:
    assert await downloaded(replied(body, content_type="text/csv"), file) == body


async def test_id_column_setting_changes_or_disables_check() -> None:
    other = replied("user_id\n1\n", content_type="text/csv")
    assert await downloaded(other, id_column="") == b"user_id\n1\n"
    assert await downloaded(other, id_column="user_id") == b"user_id\n1\n"


async def test_aborted_download_is_closed() -> None:
    async with ScriptedServer() as server, growingio_rest_driver(server) as rest:
        server.on("/download", replied(b"gio_id\n" + b"1\n" * 500_000, content_type="text/csv"))
        async with rest.open_result(SEGMENT, FILE) as download:
            async for chunk in download.chunks():
                assert chunk.startswith(b"gio_id")
                break


# Forms beside those of the document


@pytest.mark.parametrize("job_id", [17, 17.0, "17", " 17 "])
async def test_job_id_that_is_a_number_is_its_digits(job_id: Any) -> None:
    async with ScriptedServer() as server, growingio_rest_driver(server) as rest:
        server.on(SUBMIT, json_replied({"id": job_id}))
        assert await rest.submit(SEGMENT) == Submitted("17")


@pytest.mark.parametrize("stage", ["finish", "Finish "])
async def test_stage_is_recognized_in_any_case(stage: str) -> None:
    assert await poll(json_replied({"stage": stage, "uris": []})) == Ready(stage, ())
    assert isinstance(await poll(json_replied({"stage": "error"})), OperationFailed)


# Tags of a project beside those of its spaces


@pytest.mark.parametrize(
    ("in_space", "path"),
    [
        (None, "/v1/api/projects/WlGk4Daj/spaces/VKwkPmqX/user_tags/tag_rfm/export_jobs"),
        (False, "/v1/api/projects/WlGk4Daj/user_tags/tag_rfm/export_jobs"),
    ],
)
async def test_tag_is_exported_from_the_space_or_from_the_project(in_space: bool | None, path: str) -> None:
    export = GrowingioUserTagUsers(project_id="WlGk4Daj", tag_key="tag_rfm", in_space=in_space)
    async with ScriptedServer() as server, growingio_rest_driver(server, space_id="VKwkPmqX") as rest:
        server.on(path, json_replied({"id": "kqQeWeGr"}))
        assert await rest.submit(export) == Submitted("kqQeWeGr")


# The cheap call


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (json_replied({"stage": "NONE"}), None),
        (replied("Internal Server Error", 500), None),
        (replied("Internal Server Error", 200), None),
        (json_replied({"message": "no such job"}, 404), None),
        (json_replied({}, 401), AuthFailedError),
        (replied("<html>", 502, "text/html"), PlatformUnavailableError),
        (replied("<html>login</html>", 200, "text/html"), PlatformMalformedError),
    ],
)
async def test_check_makes_only_the_call_that_every_document_names(reply: Reply, error: type[StepError] | None) -> None:
    async with ScriptedServer() as server, growingio_rest_driver(server) as rest:
        server.on("/v1/api/job/result/00000000", reply)
        if error is None:
            assert await cheap_check(rest) == "the token is not refused"
        else:
            with pytest.raises(error):
                await cheap_check(rest)
    assert len(server.seen) == 1
