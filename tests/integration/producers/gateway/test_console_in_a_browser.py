"""The console in a real browser: journeys of an operator, the policy, accessibility, and what a phone shows."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from arq.connections import ArqRedis
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.support.expected_conditions import title_is
from selenium.webdriver.support.wait import WebDriverWait

from export_producers.console import live
from export_producers.gateway.callers.principals import Role
from export_producers.gateway.options import NamedKey
from export_worker.contract.status import Phase
from export_worker.errors import PlatformNotFoundError
from support import browser, secret_canaries
from support.console_browser import WAIT_S, click, drive, press, shown, waiting
from support.gateway_site import OPTIONS, GatewaySite, open_gateway
from support.redis_site import UNAVAILABLE

NAME = "分群用户 " * 20 + '<script>alert("x")</script>'


@pytest.fixture
async def console(arq_redis: ArqRedis, redis_url: str, namespace: str) -> AsyncIterator[GatewaySite]:
    async with open_gateway(arq_redis, redis_url, namespace) as gateway:
        yield gateway


async def several(console: GatewaySite) -> dict[Phase, str]:
    """Makes an export in each phase, and returns their ids."""
    site = console.site
    found = {Phase.SUCCEEDED: await site.ended(None), Phase.FAILED: await site.ended(PlatformNotFoundError(NAME))}
    found[Phase.TRANSFERRING], found[Phase.RUNNING] = await site.transferring(), await site.running()
    found[Phase.QUEUED] = await console.enqueue(metadata={"order": "42", "name": NAME})
    await site.fail((await site.claim())[-1], UNAVAILABLE)
    return found


def rows(driver: Chrome) -> list[str]:
    return [str(row.get_attribute("id")) for row in driver.find_elements(By.CSS_SELECTOR, "tbody tr")]


def listed(driver: Chrome, *export_ids: str) -> None:
    """Waits until the page lists these exports and no others."""
    wanted = [f"export-{export_id}" for export_id in export_ids]
    WebDriverWait(driver, WAIT_S, ignored_exceptions=[StaleElementReferenceException]).until(
        lambda _: rows(driver) == wanted
    )


async def test_operator_finds_a_failed_export_and_retries_it(
    console: GatewaySite, driver: Chrome, pictures: Path
) -> None:
    ids = await several(console)

    def journey() -> None:
        driver.get(f"{console.url}/console/")
        browser.picture(driver, pictures, "overview")
        click(driver, ".pages li:nth-child(2) a")
        shown(driver, "h1", "Exports")
        assert len(rows(driver)) == len(ids)
        browser.picture(driver, pictures, "exports")
        click(driver, ".chips .failed")
        listed(driver, ids[Phase.FAILED])
        click(driver, "tbody th a")
        shown(driver, "h1", "Tag users")
        browser.picture(driver, pictures, "export-failed")
        click(driver, ".actions summary")
        click(driver, ".actions button[value=submit]")
        shown(driver, "[role=status]", "The export was restarted.")

    await drive(journey)
    assert (await console.site.queue.status(ids[Phase.FAILED])).phase is Phase.QUEUED


async def test_operator_cancels_an_export_by_keyboard_only(console: GatewaySite, driver: Chrome) -> None:
    export_id = await console.enqueue()

    def journey() -> None:
        driver.get(f"{console.url}/console/exports?phase=queued")
        press(driver, "j")
        press(driver, Keys.ENTER)
        shown(driver, "h1", "Tag users")
        press(driver, "c")
        press(driver, Keys.ENTER)
        shown(driver, "[role=status]", "Cancellation requested")
        press(driver, "ge")
        shown(driver, "h1", "Exports")
        press(driver, "/")
        press(driver, "order=43", Keys.ENTER)
        shown(driver, ".empty", "Nothing matches")

    await drive(journey)
    assert await console.site.record(export_id) | {"cancel": ""} != await console.site.record(export_id)


async def test_operator_pauses_a_connection_before_maintenance(
    console: GatewaySite, driver: Chrome, pictures: Path
) -> None:
    export_id = await console.enqueue()
    loop = asyncio.get_running_loop()

    def claimed() -> list[str]:
        return asyncio.run_coroutine_threadsafe(console.site.ids(), loop).result()

    def journey() -> None:
        driver.get(f"{console.url}/console/connections")
        click(driver, "tbody th a")
        shown(driver, "h1", "gio")
        click(driver, ".actions summary")
        driver.find_element(By.NAME, "until").send_keys("30m")
        driver.find_element(By.NAME, "reason").send_keys("maintenance of the platform")
        click(driver, ".actions details button")
        shown(driver, "[role=status]", "The connection is paused.")
        browser.picture(driver, pictures, "connection-paused")
        assert claimed() == []
        console.now_s[0] += 60  # the overview and the explanations are read again
        driver.get(f"{console.url}/console/")
        shown(driver, "#lead", "Connection gio is paused by anonymous")
        shown(driver, "#lead", "maintenance of the platform")
        driver.get(f"{console.url}/console/exports/{export_id}")
        shown(driver, "#part-why", "maintenance of the platform")
        driver.get(f"{console.url}/console/connections/gio")
        click(driver, ".actions .resume button")
        shown(driver, "[role=status]", "The connection is not paused.")

    await drive(journey)
    console.site.catch_up()
    assert await console.site.ids() == [export_id]


async def test_open_pages_follow_their_exports(console: GatewaySite, driver: Chrome) -> None:
    export_id = await console.enqueue()
    loop = asyncio.get_running_loop()

    def fail() -> None:
        asyncio.run_coroutine_threadsafe(fail_the_only_one(console), loop).result()

    def journey() -> None:
        driver.get(f"{console.url}/console/exports")
        driver.execute_script("window.isSamePage = true")
        link = driver.find_element(By.CSS_SELECTOR, "tbody th a")
        link.send_keys("")
        assert driver.switch_to.active_element == link
        shown(driver, "#live", "live")
        assert not driver.find_element(By.ID, "made").is_displayed()
        fail()
        shown(driver, "tbody .phase", "failed")
        assert driver.execute_script("return window.isSamePage")
        assert export_id in str(driver.switch_to.active_element.get_attribute("href"))
        asyncio.run_coroutine_threadsafe(console.enqueue(), loop).result()
        shown(driver, "#new", "Show 1 new exports")

    await drive(journey)


async def test_title_of_an_open_page_has_its_number_and_a_silent_page_its_age(
    console: GatewaySite, driver: Chrome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "ALIVE_S", 3600.0)
    await console.enqueue()
    loop = asyncio.get_running_loop()

    def journey() -> None:
        driver.get(f"{console.url}/console/failures")
        assert driver.title == "Failures · export-worker"
        shown(driver, "#live", "live")
        asyncio.run_coroutine_threadsafe(fail_the_only_one(console), loop).result()
        console.now_s[0] += 60  # so that shared reads are old
        waiting(driver).until(title_is("(1) Failures · export-worker"))
        # Nothing else changes. Without a sign of life, the page must not claim to be of now.
        shown(driver, "#live.old", "old")

    await drive(journey)


async def fail_the_only_one(console: GatewaySite) -> None:
    await console.site.fail(await console.site.one(), PlatformNotFoundError("no such tag"))


async def test_console_is_used_without_scripts(console: GatewaySite) -> None:
    ids = await several(console)

    def journey() -> None:
        with browser.browser(scripts=False) as driver:
            driver.get(f"{console.url}/console/exports?phase=queued")
            listed(driver, ids[Phase.QUEUED])
            click(driver, "tbody th a")
            shown(driver, "h1", "Tag users")
            assert "UTC" in driver.find_element(By.TAG_NAME, "time").text
            click(driver, ".actions summary")
            click(driver, ".actions button")
            shown(driver, "[role=status]", "Cancellation requested")

    await drive(journey)


async def test_person_logs_in_and_out_with_a_key(
    arq_redis: ArqRedis, redis_url: str, namespace: str, driver: Chrome, pictures: Path
) -> None:
    options = replace(OPTIONS, keys=(NamedKey("oncall", secret_canaries.GATEWAY_KEY, Role.OPERATOR, None),))
    async with open_gateway(arq_redis, redis_url, namespace, options) as locked:

        def journey() -> None:
            driver.get(f"{locked.url}/console/exports?phase=failed")
            driver.find_element(By.NAME, "key").send_keys("wrong", Keys.ENTER)
            shown(driver, "#wrong", "This key is not valid.")
            browser.picture(driver, pictures, "login")
            driver.find_element(By.NAME, "key").send_keys(secret_canaries.GATEWAY_KEY, Keys.ENTER)
            shown(driver, "h1", "Exports")
            assert driver.current_url == f"{locked.url}/console/exports?phase=failed"
            cookie = driver.get_cookie("ew")
            assert cookie is not None
            assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
            click(driver, ".visitor button")
            shown(driver, "h1", "Log in")
            driver.get(f"{locked.url}/console/exports")
            shown(driver, "h1", "Log in")

        await drive(journey)


def gaps_below(driver: Chrome, selector: str) -> list[int]:
    """Returns how far an element is above the bottom of the window: at the start of the page, and after scrolling."""
    script = """
        const gap = () => Math.round(innerHeight - document.querySelector(arguments[0]).getBoundingClientRect().bottom)
        scrollTo(0, 0)
        const first = gap()
        scrollTo(0, 300)
        return [first, gap()]
    """
    found: list[int] = driver.execute_script(script, selector)
    return found


async def test_phone_shows_every_page_without_sideways_scrolling_in_chinese(
    console: GatewaySite, driver: Chrome, pictures: Path
) -> None:
    ids = await several(console)

    def journey() -> None:
        browser.resize(driver, browser.PHONE)
        driver.get(f"{console.url}/console/exports")
        click(driver, ".preferences a[hreflang=zh-Hans]")
        shown(driver, "h1", "导出")
        driver.get(f"{console.url}/console/")
        browser.picture(driver, pictures, "overview-phone-zh")
        assert not browser.is_wider_than_the_window(driver)
        driver.get(f"{console.url}/console/exports")
        browser.picture(driver, pictures, "exports-phone-zh")
        assert not browser.is_wider_than_the_window(driver)
        for phase in (Phase.FAILED, Phase.SUCCEEDED):
            driver.get(f"{console.url}/console/exports/{ids[phase]}")
            browser.picture(driver, pictures, f"export-{phase}-phone-zh")
            assert not browser.is_wider_than_the_window(driver)
            for size in (browser.PHONE, (320, 480)):
                browser.resize(driver, size)
                assert browser.parts_beyond_the_window(driver) == []
                assert gaps_below(driver, ".bar") == [0, 0], "the actions stand at the bottom wherever one reads"
            assert all(
                each.size["height"] >= 44 and each.size["width"] >= 44
                for each in driver.find_elements(By.CSS_SELECTOR, ".bar summary, .bar .button")
            )
            browser.picture(driver, pictures, f"export-{phase}-phone-small")
            click(driver, ".bar summary")
            last = driver.find_elements(By.CSS_SELECTOR, ".bar button")[-1]
            driver.execute_script("arguments[0].scrollIntoView({block: 'nearest'})", last)
            assert driver.execute_script(
                "const box = arguments[0].getBoundingClientRect(); return box.height >= 44 && "
                "document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2) === arguments[0]",
                last,
            )
            browser.picture(driver, pictures, f"export-{phase}-phone-actions")
            browser.resize(driver, browser.PHONE)
        assert driver.find_element(By.ID, "timeline").text == "时间线"

    await drive(journey)
