"""The page New export in a real browser: the journey of a person, accessibility, and what a phone shows."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from arq.connections import ArqRedis
from selenium.webdriver import ActionChains, Chrome, Keys
from selenium.webdriver.common.by import By

from support import browser
from support.console_browser import click, drive, shown, waiting
from support.gateway_site import OPTIONS, GatewaySite, open_gateway

NAME = "分群用户 " * 60 + "\u202e<script>alert(1)</script>"
SEGMENTS = "new?connection=gio&kind=growingio.segment_users"


@pytest.fixture
async def console(arq_redis: ArqRedis, redis_url: str, namespace: str) -> AsyncIterator[GatewaySite]:
    async def catalog(connection: str, resource: str, project: str | None) -> list[dict[str, Any]]:
        return [{"id": "qgQMXnD3", "name": NAME}, {"id": "KzpNmzQk", "name": "高价值用户"}]

    connections = {"gio": "growingio", "ta": "thinkingdata"}
    async with open_gateway(arq_redis, redis_url, namespace, OPTIONS, catalog, connections=connections) as gateway:
        yield gateway


def enter(driver: Chrome, field: str, *texts: str) -> None:
    """Types into a field, also of a page that is loaded again in between."""

    def entered(page: Chrome) -> bool:
        page.find_element(By.ID, f"field-{field}").send_keys(*texts)
        return True

    waiting(driver).until(entered)


def press(driver: Chrome, button: str) -> None:
    click(driver, f"form.new button[value='{button}']")


def find(driver: Chrome, field: str) -> None:
    """Searches the catalog for a field, with any name."""
    click(driver, f"#field-{field} ~ details summary")
    press(driver, f"find:{field.replace('-', '.')}")


def until_focused(driver: Chrome, element_id: str) -> None:
    """Waits until an element has the focus, also on a page that is loaded meanwhile."""
    waiting(driver).until(lambda page: page.switch_to.active_element.get_attribute("id") == element_id)


async def test_person_requests_an_export_with_a_form(console: GatewaySite, driver: Chrome, pictures: Path) -> None:
    def journey() -> None:
        driver.get(f"{console.url}/console/")
        browser.picture(driver, pictures, "overview-empty")
        click(driver, "#main a.button")
        shown(driver, "h2", "Which connection?")
        click(driver, ".choices a")
        shown(driver, "h2", "What is exported from gio?")
        browser.picture(driver, pictures, "new-kinds")
        driver.find_element(By.LINK_TEXT, "Segment users").click()
        enter(driver, "export-project_id", "WlGk4Daj")
        enter(driver, "deadline_s", "soon", Keys.ENTER)
        shown(driver, "#problems", "deadline_s")
        until_focused(driver, "problems")
        browser.picture(driver, pictures, "new-problems")
        driver.find_element(By.CSS_SELECTOR, "#problems a[href='#field-deadline_s']").click()
        assert driver.find_element(By.ID, "field-deadline_s").get_attribute("value") == "soon"
        driver.find_element(By.ID, "field-deadline_s").clear()
        enter(driver, "deadline_s", "7200")
        click(driver, "#field-export-segment_id ~ details summary")
        driver.find_element(By.ID, "find-field-export-segment_id").send_keys("高价值", Keys.ENTER)
        click(driver, ".options button")
        until_focused(driver, "field-export-segment_id")
        assert driver.find_element(By.ID, "field-export-segment_id").get_attribute("value") == "KzpNmzQk"
        press(driver, "check")
        shown(driver, "#checked", "The request is valid.")
        until_focused(driver, "checked")
        browser.picture(driver, pictures, "new-checked")
        button = driver.find_element(By.CSS_SELECTOR, "form.new button[value=submit]")
        ActionChains(driver).double_click(button).perform()
        shown(driver, "[role=status]", "The export was requested.")
        click(driver, ".actions a[href*=again]")
        shown(driver, "h1", "New export")
        assert driver.find_element(By.ID, "field-export-segment_id").get_attribute("value") == "KzpNmzQk"

    await drive(journey)
    (status,) = await console.site.queue.list_exports()
    assert status.request is not None
    assert status.request["export"] == {
        "kind": "growingio.segment_users",
        "project_id": "WlGk4Daj",
        "segment_id": "KzpNmzQk",
    }


async def test_export_is_requested_without_scripts(console: GatewaySite) -> None:
    def journey() -> None:
        with browser.browser(scripts=False) as driver:
            driver.get(f"{console.url}/console/new?connection=gio")
            driver.find_element(By.LINK_TEXT, "Tag users").click()
            press(driver, "submit")
            shown(driver, "#field-export-tag_key-problem", "exactly one of")
            enter(driver, "export-tag_key", "tag_1")
            press(driver, "submit")
            shown(driver, "[role=status]", "The export was requested.")

    await drive(journey)
    assert len(await console.site.queue.list_exports()) == 1


@pytest.mark.parametrize("look", ["lang=en&theme=light", "lang=zh&theme=dark"])
async def test_page_is_accessible_in_each_state(
    console: GatewaySite, driver: Chrome, pictures: Path, look: str
) -> None:
    def check(state: str) -> None:
        assert browser.accessibility_findings(driver) == [], state
        browser.picture(driver, pictures, f"new-{state}-{look[5:7]}-{look[14:]}")

    def journey() -> None:
        for path, state in (("new?", "connections"), ("new?connection=gio&", "kinds"), ("new?as=json&", "json")):
            driver.get(f"{console.url}/console/{path}{look}")
            check(state)
        driver.get(f"{console.url}/console/{SEGMENTS}&{look}")
        check("form")
        find(driver, "export-segment_id")
        check("found")
        press(driver, "check")
        check("problems")
        enter(driver, "export-project_id", "WlGk4Daj")
        enter(driver, "export-segment_id", "qgQMXnD3")
        press(driver, "check")
        check("checked")

    await drive(journey)


async def test_form_fits_a_phone(console: GatewaySite, driver: Chrome, pictures: Path) -> None:
    def journey() -> None:
        for size in (browser.PHONE, (320, 700)):
            browser.resize(driver, size)
            driver.get(f"{console.url}/console/{SEGMENTS}&lang=zh")
            browser.picture(driver, pictures, f"new-phone-{size[0]}")
            find(driver, "export-segment_id")
            assert browser.parts_beyond_the_window(driver) == []
            browser.picture(driver, pictures, f"new-found-phone-{size[0]}")
            click(driver, ".options button")
            enter(driver, "export-project_id", "WlGk4Daj")
            press(driver, "check")
            shown(driver, "#checked", "请求有效")
            assert browser.parts_beyond_the_window(driver) == []

    await drive(journey)
