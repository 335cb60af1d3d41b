"""Every page of the console in a real browser: accessibility, narrow screens, the policy, and a picture of each."""

import asyncio
from pathlib import Path

import pytest
from arq.connections import ArqRedis
from selenium.webdriver import Chrome

from export_worker.errors import PlatformNotFoundError
from support import browser
from support.console_world import fill
from support.gateway_site import open_gateway

NARROW = (320, 640)
"""The width that WCAG 1.4.10 names, in CSS pixels."""
BEYOND_PAGES = ("/console/exports?connection=none", "/console/nothing", "/console/exports?phase=lost")
"""An empty list, a page that does not exist, and an error."""


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("lang", "theme"), [("en", "light"), ("zh", "dark")])
async def test_every_page_is_accessible_and_fits_a_narrow_screen(
    arq_redis: ArqRedis, redis_url: str, namespace: str, driver: Chrome, pictures: Path, lang: str, theme: str
) -> None:
    async with open_gateway(arq_redis, redis_url, namespace, connections=("gio", "ta")) as console:
        await console.site.enqueue()
        await console.site.fail(await console.site.one(), PlatformNotFoundError("a cause of its own"))
        world = await fill(console.site)
        until_ms = console.site.now_ms + 3_600_000
        await console.site.redis.hset(console.site.keys.breaker("gio"), mapping={"until": until_ms, "pauses": 23})

        def look() -> None:
            for path in (*world.paths(), *BEYOND_PAGES):
                driver.get(f"{console.url}{path}{'&' if '?' in path else '?'}lang={lang}&theme={theme}")
                name = f"{lang}-{theme}{world.named(path)}"
                browser.picture(driver, pictures, name)
                assert browser.accessibility_findings(driver) == [], path
                other = "dark" if theme == "light" else "light"
                driver.execute_script("document.documentElement.dataset.theme = arguments[0]", other)
                assert browser.accessibility_findings(driver, browser.COLOUR_RULES) == [], (path, other)
                browser.resize(driver, NARROW)
                assert browser.parts_beyond_the_window(driver) == [], path
                browser.picture(driver, pictures, f"{name}-narrow")
                browser.resize(driver, browser.DESKTOP)
                assert browser.complaints(driver) == [], path

        await asyncio.to_thread(look)
