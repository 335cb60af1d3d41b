"""The first journeys of an operator in a real browser, with the pictures that the READMEs show (`make pictures`)."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from arq.connections import ArqRedis
from selenium.webdriver import Chrome, Keys
from selenium.webdriver.common.by import By

from support import browser
from support.console_browser import click, drive, press, shown
from support.console_showcase import CONNECTIONS, Day, showcase
from support.gateway_site import GatewaySite, open_gateway

SIZE = (1280, 800)
"""The size of a picture in the READMEs."""


@pytest.fixture
async def console(arq_redis: ArqRedis, redis_url: str, namespace: str) -> AsyncIterator[GatewaySite]:
    async with open_gateway(arq_redis, redis_url, namespace, connections=CONNECTIONS) as gateway:
        yield gateway


@pytest.fixture
async def day(console: GatewaySite) -> Day:
    return await showcase(console.site)


async def test_operator_finds_the_export_of_an_order_and_reads_why_it_waits(
    console: GatewaySite, day: Day, driver: Chrome, pictures: Path
) -> None:
    def journey() -> None:
        browser.resize(driver, SIZE)
        driver.get(f"{console.url}/console/?theme=light")
        shown(driver, "#lead", "Connection ta is paused")
        shown(driver, "#part-connections", "gio-nightly")
        browser.picture(driver, pictures, "console-overview")
        press(driver, "ge")
        shown(driver, "h1", "Exports")
        press(driver, "/")
        press(driver, "order=42", Keys.ENTER)
        shown(driver, "h1", "Segment users")
        assert day.order_42 in driver.current_url
        shown(driver, "#part-why", "gio-nightly")
        shown(driver, "#part-why", "slot")
        # It is due, and waits for something that has no time.
        assert "is due" not in driver.find_element(By.ID, "part-why").text
        browser.picture(driver, pictures, "console-export")

    await drive(journey)


async def test_operator_switches_to_chinese_and_stays_on_the_page(
    console: GatewaySite, day: Day, driver: Chrome, pictures: Path
) -> None:
    def journey() -> None:
        browser.resize(driver, SIZE)
        driver.get(f"{console.url}/console/exports/{day.order_42}?theme=light")
        click(driver, ".preferences a[hreflang=zh-Hans]")
        shown(driver, "h1", "分群用户")
        assert day.order_42 in driver.current_url
        assert driver.find_element(By.TAG_NAME, "html").get_attribute("lang") == "zh-Hans"
        shown(driver, "#part-why", "gio-nightly")
        browser.picture(driver, pictures, "console-export.zh")
        press(driver, "go")
        shown(driver, "h1", "概览")
        browser.picture(driver, pictures, "console-overview.zh")
        click(driver, ".preferences a[hreflang=en]")
        shown(driver, "h1", "Overview")

    await drive(journey)
