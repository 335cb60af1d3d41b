"""Which short texts are messages in place of a table, and which of them are quoted."""

import re

import pytest

from export_worker.credentials import Redactor
from export_worker.errors import DownloadInvalidError
from export_worker.transfer.error_pages import ErrorPages


def check(text: str, file_name: str = "a.csv") -> None:
    ErrorPages(file_name, Redactor()).check_whole(text.encode())


MESSAGES = [
    "Service Unavailable",
    "upstream connect error or disconnect/reset before headers. reset reason: connection failure",
    "error code: 1020",
    "404 page not found\n",
    "no healthy upstream",
    "The request could not be satisfied.",
    "Unauthorized",
    "null",
    "Too many requests!",
    "HTTP 502: Bad gateway",
    "upstream connect error or disconnect/reset before headers. reset reason: connection failure, transport failure",
    "Sorry, the page you requested was not found.",
    "dial tcp 10.0.0.1:8080: connect: connection refused",
    "default backend - 404",
    "rate limit exceeded: retry after 30 seconds",
    '"Internal Server Error"',
    "Internal Server Error\n\nRequest ID: 8f3a\n",
    "Bad Request\r\nInvalid header\r\n",
    "java.lang.NullPointerException",
    "java.lang.NullPointerException\n\tat com.example.Foo.bar(Foo.java:12)\n",
    "Traceback (most recent call last):\n  File 'x.py', line 1\n",
    "error=access_denied&error_description=expired",
    "AccessDenied",
    "NoSuchKey",
    "ERR_NOT_FOUND",
    "Internal_Server_Error",
    "SignatureDoesNotMatch",
    "OK",
    "系统繁忙\uff0c请稍后再试",
    "文件不存在",
    "token已失效",
    "Page not found · Status",
    "操作失败,请重试",
    "用户未登录,请重新登录",
    "没有权限",
    "服务不可用",
    "操作失败, 错误码 500",
    "系統忙碌,請稍後再試",
    "Internal Server Error, please contact admin",
    "Internal Server Error, please contact admin\nRequest ID: 8f3a, node 2\n",
    "An error occurred while processing the request\nRequest ID: 8f3a\n",
    "Unauthorized.",
    "access_denied",
    "token过期",
    "Your session has expired",
    "301 Moved Permanently",
    "Login failed",
]


@pytest.mark.parametrize("text", MESSAGES)
def test_line_of_plain_words_is_refused_under_the_name_of_a_table(text: str) -> None:
    with pytest.raises(
        DownloadInvalidError, match=re.escape(f"the download is a message, not a table: {text.strip()[:8]}")
    ):
        check(text)
    for name in ("a.json", "a.csv.gz", "a.xlsx"):
        with pytest.raises(DownloadInvalidError):
            check(text, name)
    check(text, "a.txt")


@pytest.mark.parametrize(
    "text",
    [
        "id",
        "user_id\n",
        "用户 ID\n",
        "first name,last name\n",
        "a b\n1 2\n",
        "x\ty",
        '"two words"\n',
        "",
        "\n",
        "error,count\ntimeout,3\n",
        "Error Code\tMessage\n500\tInternal Server Error\n",
        "Error Code\n500\n404\n",
        "id\nInternal Server Error\n",
        "failed\nu1\n",
        "[0,18),[18,25)\n",
        "id, full name\n1,2\n",
        "date,2024-01-01,2024-01-02\nx,1,2\n",
        "login_failed\n",
        "用户标识\n",
        "User ID\n",
        "Access Level\n",
        "Last Access Time\n",
        "会员是否过期\n",
        "失败原因\n",
        "登录失败次数\n",
        "30天未登录用户数\n",
        "用户 ID,登录失败,登录成功\n",
        "用户数\uff08去重\uff0c近7天\uff09\n",
        "User ID,Number of failed payment attempts\r\n",
        "Number of failed payment attempts\n",
        "Number of failed payment attempts\n3\n",
        "full name\nReset Me\n",
        "full name\nZhang Denied\nAccess Denied\n",
        "Company Name\nAccess Bank\n",
        "<id>,<name>\n",
        "<id>,<name>\n1,Zhang\n",
        "Error Type\n",
        "Exception Count\n",
        "Last Maintenance Date\n",
        "id,Contact Email,Please rate our service\n",
    ],
)
def test_table_without_rows_is_accepted(text: str) -> None:
    check(text)


@pytest.mark.parametrize("name", ["a.json", "a.JSON", "a.jsonl", "a.ndjson"])
@pytest.mark.parametrize(
    "text",
    [
        '{"a":1}',
        '{"code":"A1"}',
        '{"title":"Dr"}',
        '{"message":"hello","phone":"13800000000"}',
        '{"code":0,"message":"ok","data":[]}',
        '{"code":0,"message":"ok","data":{"id":1}}',
        '{"message":"a"}\n{"message":"b"}\n',
        "{}",
    ],
)
def test_json_object_is_accepted_for_json_file_name(name: str, text: str) -> None:
    check(text, name)


@pytest.mark.parametrize("name", ["a.json", "a.JSON", "a.jsonl", "a.ndjson", "a.csv", "users"])
@pytest.mark.parametrize(
    "text",
    [
        '{"error":"token expired"}',
        '{"code":401,"message":"expired","data":null}',
        '{"code":401,"msg":"expired","data":{},"requestId":"8f3a","success":false}',
        '{"success":false,"code":3}',
        '{"timestamp":1,"status":404,"error":"Not Found","path":"/a"}',
    ],
)
def test_json_error_is_refused_under_every_name_and_quoted(name: str, text: str) -> None:
    with pytest.raises(DownloadInvalidError, match=re.escape(f"the download is a JSON message, not a file: {text}")):
        check(text, name)


@pytest.mark.parametrize(
    "text",
    [
        "<b>Zhang San</b>,13800000000\n",
        "<p>Zhang San</p>,13800000000\n",
        '{"title":"Dr","phone":"13800000000"}',
        '{"message":"hello","phone":"13800000000"}',
        "Access Denied 13800000000",
        "Access Denied\nZhang a@example.com\n",
        "which of our products did Zhang buy\n",
        "Zhang was wrong about it\nZhang Li\n",
    ],
)
def test_refused_text_that_may_be_rows_is_not_quoted(text: str) -> None:
    with pytest.raises(DownloadInvalidError) as caught:
        check(text)
    assert not re.search("138|Zhang|Dr|hello|example", str(caught.value))
