"""The journeys of an operator after an outage, in a real browser: retry many exports, and stop halfway."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from arq.connections import ArqRedis
from selenium.webdriver import Chrome, Keys
from selenium.webdriver.common.by import By

from export_worker.contract.status import Phase
from export_worker.errors import PlatformUnavailableError
from support import browser
from support.console_browser import click, drive, press, shown, waiting
from support.gateway_site import GatewaySite, open_gateway
from support.redis_site import REFUSED

TEMPORARY = PlatformUnavailableError("HTTP 503")


@pytest.fixture
async def console(arq_redis: ArqRedis, redis_url: str, namespace: str) -> AsyncIterator[GatewaySite]:
    async with open_gateway(arq_redis, redis_url, namespace) as gateway:
        yield gateway


async def outage(console: GatewaySite, temporary: int, refused: int) -> tuple[list[str], list[str]]:
    """Returns exports that have failed at HTTP 503, and those that cannot succeed."""
    return await console.site.failed(temporary, TEMPORARY), await console.site.failed(refused, REFUSED)


async def counted(console: GatewaySite, export_ids: list[str]) -> dict[Phase, int]:
    phases = await asyncio.gather(*(console.site.queue.status(each) for each in export_ids))
    return {phase: sum(each.phase is phase for each in phases) for phase in (Phase.QUEUED, Phase.FAILED)}


def progressed(driver: Chrome) -> None:
    """Waits until a run has acted on an export."""
    waiting(driver).until(lambda page: re.search("[1-9][0-9]* of [0-9]+ export", page.find_element(By.ID, "main").text))


async def test_operator_retries_what_failed_at_503_and_stops_halfway(
    console: GatewaySite, driver: Chrome, pictures: Path
) -> None:
    temporary, refused = await outage(console, 214, 9)

    def journey() -> None:
        driver.get(f"{console.url}/console/failures")
        browser.picture(driver, pictures, "failures-of-an-outage")
        click(driver, "#retry")
        shown(driver, "h1", "Retry 214 export(s)?")
        shown(driver, "main", "Left out, because a retry alone cannot succeed: 9")
        browser.picture(driver, pictures, "bulk-confirmation")
        assert browser.accessibility_findings(driver) == []
        driver.find_element(By.ID, "typed").send_keys("214")
        click(driver, "main form button.primary")
        shown(driver, "#state", "Running.")
        driver.execute_script("window.isSamePage = true")
        progressed(driver)
        browser.picture(driver, pictures, "bulk-running")
        assert browser.accessibility_findings(driver) == []
        assert driver.execute_script("return window.isSamePage")
        click(driver, "main form button.danger")
        shown(driver, "#state", "Stopped")
        browser.picture(driver, pictures, "bulk-stopped")

    await drive(journey)
    found = await counted(console, temporary)
    assert 0 < found[Phase.QUEUED] < 214
    assert found[Phase.QUEUED] + found[Phase.FAILED] == 214
    assert await counted(console, refused) == {Phase.QUEUED: 0, Phase.FAILED: 9}


async def test_operator_retries_two_exports_by_keyboard_only(console: GatewaySite, driver: Chrome) -> None:
    oldest, *others = await console.site.failed(3, TEMPORARY)

    def journey() -> None:
        driver.get(f"{console.url}/console/exports?phase=failed")
        for key in ("j", "x", "j", "x", "r"):
            press(driver, key)
        shown(driver, "h1", "Retry 2 export(s)?")
        for _ in range(40):
            press(driver, Keys.TAB)
            if driver.switch_to.active_element.get_attribute("class") == "primary":
                break
        press(driver, Keys.ENTER)
        shown(driver, "#state", "Done.")

    await drive(journey)
    assert await counted(console, others) == {Phase.QUEUED: 2, Phase.FAILED: 0}
    assert await counted(console, [oldest]) == {Phase.QUEUED: 0, Phase.FAILED: 1}


async def test_operator_retries_and_stops_on_a_phone_in_chinese(
    console: GatewaySite, driver: Chrome, pictures: Path
) -> None:
    await outage(console, 30, 2)

    def journey() -> None:
        browser.resize(driver, browser.PHONE)
        driver.get(f"{console.url}/console/failures?lang=zh")
        click(driver, "#retry")
        shown(driver, "h1", "重试 30 个导出")
        assert not browser.is_wider_than_the_window(driver)
        browser.picture(driver, pictures, "bulk-confirmation-phone-zh")
        click(driver, "main form button.primary")
        shown(driver, "#state", "正在执行。")
        assert not browser.is_wider_than_the_window(driver)
        browser.picture(driver, pictures, "bulk-running-phone-zh")
        click(driver, "main form button.danger")
        shown(driver, "#state", "已停止")

    await drive(journey)


async def test_operator_retries_and_stops_without_scripts(console: GatewaySite) -> None:
    temporary, _ = await outage(console, 90, 2)

    def journey() -> None:
        with browser.browser(scripts=False) as driver:
            driver.get(f"{console.url}/console/failures")
            click(driver, "#retry")
            click(driver, "main form button.primary")
            progressed(driver)
            click(driver, "main form button.danger")
            shown(driver, "#state", "Stopped")

    await drive(journey)
    assert (await counted(console, temporary))[Phase.FAILED] > 0


async def test_keys_are_listed_and_can_be_switched_off(console: GatewaySite, driver: Chrome, pictures: Path) -> None:
    def journey() -> None:
        driver.get(f"{console.url}/console/exports")
        press(driver, "?")
        shown(driver, "#help", "Next row")
        browser.picture(driver, pictures, "keys")
        assert browser.accessibility_findings(driver) == []
        press(driver, Keys.ESCAPE)
        assert not driver.find_element(By.ID, "help").is_displayed()
        press(driver, "/", "gf", Keys.ESCAPE)
        assert driver.switch_to.active_element.tag_name == "body"
        press(driver, "?")
        click(driver, "#help a")
        press(driver, "gf")
        click(driver, "footer a[href='/console/keys']")
        shown(driver, "h1", "Keyboard")
        shown(driver, "main", "The keys are switched off.")
        assert browser.accessibility_findings(driver) == []
        click(driver, "main a")
        press(driver, "gf")
        shown(driver, "h1", "Failures")

    await drive(journey)


async def test_view_is_named_kept_by_the_browser_and_forgotten(
    console: GatewaySite, driver: Chrome, pictures: Path
) -> None:
    await console.site.failed(1, TEMPORARY)

    def journey() -> None:
        driver.get(f"{console.url}/console/exports")
        click(driver, "#views a[href*='phase=failed']")
        shown(driver, "main", "Exports that match: 1")
        driver.find_element(By.NAME, "name").send_keys("<b>on call</b>", Keys.ENTER)
        shown(driver, "#views .kept", "<b>on call</b>")
        browser.picture(driver, pictures, "views")
        assert browser.accessibility_findings(driver) == []
        driver.get(f"{console.url}/console/exports")
        click(driver, "#views .kept a")
        assert driver.current_url.endswith("?phase=failed&since=24h")
        click(driver, "button[name=remove]")
        waiting(driver).until(lambda page: "on call" not in page.find_element(By.ID, "views").text)

    await drive(journey)
