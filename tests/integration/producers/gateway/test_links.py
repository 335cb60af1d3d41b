"""Links that download an object of an export, over HTTP and with a real S3: who gets one, and where no link is kept."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from arq.connections import ArqRedis
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait
from structlog.testing import capture_logs
from yarl import URL

from export_producers.console.visitors.sessions import form_token
from export_producers.gateway.callers.principals import Role
from export_producers.gateway.options import NamedKey
from export_worker.config import Config, load_config
from export_worker.config.gateway import GatewayConsole
from export_worker.credentials import Redactor
from export_worker.wiring.gateway import gateway_options
from export_worker.wiring.links import link_call
from support import browser, redis_site
from support.console_pages import links, text
from support.gateway_site import OPTIONS, GatewaySite, open_gateway
from support.redis_site import STORED
from support.s3_server import REGION, new_bucket, s3_client

COOKIE = "a-cookie-of-the-visitor"
CONTENT = b"\x00<html>\xff"
NAME = '用户 "a".csv'
KEYS = (
    *(NamedKey(role, f"secret-of-{role}", role) for role in Role),
    NamedKey("other", "secret-of-other", Role.ADMIN, frozenset({"ta"})),
)
SIGNATURE = "X-Amz-Signature"


def by(name: str) -> dict[str, Any]:
    """Returns the headers of a caller, whose forms carry the token of `COOKIE`."""
    return {"headers": {"Authorization": f"Bearer secret-of-{name}", "Cookie": f"ew={COOKIE}"}}


FORM = {"data": {"token": form_token(COOKIE)}}


def config(s3_url: str) -> Config:
    """Returns the configuration of a gateway that makes links."""
    s3 = {"endpoint_url": s3_url, "region": REGION, "expected_bucket_owner": "123456789012"}
    return Config.model_validate({"s3": s3, "gateway": {"console": {"presign": True}}})


@pytest.fixture
async def gateway(arq_redis: ArqRedis, redis_url: str, namespace: str, s3_url: str) -> AsyncIterator[GatewaySite]:
    link, options = link_call(config(s3_url), Redactor()), replace(OPTIONS, keys=KEYS, presign=True)
    names = ("gio", "ta")
    async with open_gateway(arq_redis, redis_url, namespace, options, connections=names, link=link) as gateway:
        yield gateway


async def stored_export(gateway: GatewaySite, s3_url: str) -> str:
    """Returns an export with one object in S3."""
    key = "gio/dt=2026-11-30/用户 a+b.csv"
    with s3_client(s3_url) as s3:
        bucket = new_bucket(s3)
        s3.put_object(Bucket=bucket, Key=key, Body=CONTENT, ContentType="text/html")
    place = {"uri": f"s3://{bucket}/{key}", "bucket": bucket, "key": key, "file_name": NAME}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(redis_site, "STORED", STORED.model_copy(update=place))
        return await gateway.site.ended(error=None)


@pytest.fixture
async def export_id(gateway: GatewaySite, s3_url: str) -> str:
    """An export with one object in S3."""
    return await stored_export(gateway, s3_url)


async def downloaded(gateway: GatewaySite, url: str) -> bytes:
    async with gateway.client.get(URL(url, encoded=True)) as response:
        assert response.status == 200, await response.text()
        assert response.headers["Content-Disposition"].startswith("attachment; filename*=UTF-8''%E7%94%A8")
        return await response.read()


async def test_operator_downloads_an_object_by_a_link_that_is_kept_nowhere(
    gateway: GatewaySite, export_id: str
) -> None:
    path = f"/exports/{export_id}/objects/1/link"
    with capture_logs() as logs:
        made = await gateway.call("POST", f"/v1{path}", **by("operator"))
        page = await gateway.call("POST", f"/console{path}?lang=en", **FORM, **by("admin"))
    assert (made.status, made.json["file_name"], made.json["valid_s"]) == (200, NAME, 60)
    (shown,) = links(page, "http")
    for url in (made.json["url"], shown):
        assert await downloaded(gateway, url) == CONTENT
        query = parse_qs(urlsplit(url).query)
        assert (query["X-Amz-Expires"], query["X-Amz-SignedHeaders"]) == (["60"], ["host"])
    assert page.headers["Cache-Control"] == "no-store"
    assert page.headers["Referrer-Policy"] == "no-referrer"
    assert "form-action 'self'" in page.headers["Content-Security-Policy"]
    acts = (await gateway.call("GET", "/v1/activity", **by("admin"))).json["entries"]
    assert [(act["who"], act["action"], act["export_id"], act["connection"], act["detail"]) for act in acts] == [
        (who, "object_link", export_id, "gio", {"file": NAME}) for who in ("admin", "operator")
    ]
    status = await gateway.call("GET", f"/v1/exports/{export_id}", **by("admin"))
    kept = [await gateway.site.redis.dump(key) or b"" for key in await gateway.site.redis.keys("*")]
    assert SIGNATURE not in json.dumps([acts, status.json, logs], default=str)
    assert not any(SIGNATURE.encode() in each for each in kept)
    assert {each["route"] for each in logs if each["event"] == "request.served"} >= {
        "/v1/exports/{export_id}/objects/{number}/link"
    }


@pytest.mark.parametrize(("lang", "button"), [("en", "Download link"), ("zh", "下载链接")])
async def test_only_operators_get_the_button_and_the_link(
    gateway: GatewaySite, export_id: str, lang: str, button: str
) -> None:
    path = f"/exports/{export_id}/objects/1/link"
    for name, allowed in (("viewer", 403), ("operator", 200), ("other", 404)):
        page = text(await gateway.call("GET", f"/console/exports/{export_id}?lang={lang}", **by(name)))
        assert (f'action="/console{path}"' in page, f">{button}</button>" in page) == (allowed == 200,) * 2
        form = await gateway.call("POST", f"/console{path}", **FORM, **by(name))
        assert (form.status, (await gateway.call("POST", f"/v1{path}", **by(name))).status) == (allowed, allowed)
    assert (await gateway.call("POST", f"/v1{path}", **by("service"))).status == 403
    assert (await gateway.call("POST", f"/console{path}", data={"token": "x"}, **by("admin"))).status == 403


@pytest.mark.parametrize("number", ["0", "2", "-1", "9" * 30, "%EF%BC%91", "k%2Fb.csv", "1.0"])
async def test_only_objects_of_the_record_can_be_named(gateway: GatewaySite, export_id: str, number: str) -> None:
    missing = await gateway.call("POST", f"/v1/exports/{export_id}/objects/{number}/link", **by("admin"))
    assert (missing.status, missing.json["code"]) == (404, "not_found")
    unknown = await gateway.call("POST", "/v1/exports/none/objects/1/link", **by("admin"))
    assert (unknown.status, unknown.json["code"]) == (404, "not_found")


async def test_without_the_setting_there_is_no_link(arq_redis: ArqRedis, redis_url: str, namespace: str) -> None:
    async with open_gateway(arq_redis, redis_url, namespace, replace(OPTIONS, keys=KEYS)) as gateway:
        export_id = await gateway.site.ended(error=None)
        assert "/link" not in text(await gateway.call("GET", f"/console/exports/{export_id}", **by("admin")))
        refused = await gateway.call("POST", f"/v1/exports/{export_id}/objects/1/link", **by("admin"))
        assert (refused.status, refused.json["code"]) == (404, "links_off")
        form = await gateway.call("POST", f"/console/exports/{export_id}/objects/1/link", **FORM, **by("admin"))
        assert form.status == 404
        acts = (await gateway.call("GET", "/v1/activity", **by("admin"))).json["entries"]
        assert "object_link" not in [act["action"] for act in acts]


async def test_store_that_checks_signatures_accepts_the_link_only_as_it_is(
    arq_redis: ArqRedis, redis_url: str, namespace: str, rclone_url: str
) -> None:
    link, options = link_call(config(rclone_url), Redactor()), replace(OPTIONS, presign=True)
    async with open_gateway(arq_redis, redis_url, namespace, options, link=link) as gateway:
        export_id = await stored_export(gateway, rclone_url)
        url = (await gateway.call("POST", f"/v1/exports/{export_id}/objects/1/link")).json["url"]
        assert await downloaded(gateway, url) == CONTENT
        longer = url.replace("X-Amz-Expires=60", "X-Amz-Expires=600")
        async with gateway.client.get(URL(longer, encoded=True)) as refused:
            assert refused.status == 403


def saved(folder: Path) -> list[bytes]:
    """Returns the content of the files that the browser has saved."""
    return [file.read_bytes() for file in folder.glob("*.csv")]


async def test_browser_downloads_the_file(
    arq_redis: ArqRedis, redis_url: str, namespace: str, s3_url: str, driver: Chrome, tmp_path: Path
) -> None:
    link, options = link_call(config(s3_url), Redactor()), replace(OPTIONS, presign=True)
    async with open_gateway(arq_redis, redis_url, namespace, options, link=link) as gateway:
        export_id = await stored_export(gateway, s3_url)

        def look() -> None:
            driver.execute_cdp_cmd("Page.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
            driver.get(f"{gateway.url}/console/exports/{export_id}?lang=en")
            browser.resize(driver, browser.PHONE)
            assert browser.parts_beyond_the_window(driver) == []
            browser.resize(driver, browser.DESKTOP)
            driver.find_element(By.XPATH, "//button[text()='Download link']").click()
            driver.find_element(By.LINK_TEXT, "Download")
            assert browser.parts_beyond_the_window(driver) == []
            driver.find_element(By.LINK_TEXT, "Download").click()
            WebDriverWait(driver, 20).until(lambda _: saved(tmp_path) == [CONTENT])

        await asyncio.to_thread(look)


async def test_gateway_without_boto3_names_the_extra(arq_redis: ArqRedis, redis_url: str, namespace: str) -> None:
    options = replace(OPTIONS, keys=KEYS, presign=True)
    async with open_gateway(arq_redis, redis_url, namespace, options) as gateway:
        export_id = await gateway.site.ended(error=None)
        refused = await gateway.call("POST", f"/v1/exports/{export_id}/objects/1/link", **by("admin"))
        assert (refused.status, refused.json["code"]) == (501, "not_installed")
        assert "extra [worker]" in refused.json["detail"]


@pytest.mark.parametrize(
    ("written", "console", "presign"),
    [
        ("", None, False),
        ("[gateway]\nconsole = true", True, False),
        ("[gateway]\nconsole = false", False, False),
        ("[gateway.console]\npresign = true", True, True),
        ("[gateway.console]\npresign = true\nenabled = false", False, True),
    ],
)
def test_console_is_switched_by_a_word_or_by_a_table(
    written: str, console: bool | None, presign: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "export.toml"
    file.write_text(written)
    options = gateway_options(load_config(str(file)))
    assert (options.console, options.presign) == (console, presign)
    monkeypatch.setenv("EXPORT_GATEWAY__CONSOLE__PRESIGN", "true")
    of_environment = load_config(str(file)).gateway.console
    assert of_environment == GatewayConsole(presign=True, enabled=console is not False or not presign)
