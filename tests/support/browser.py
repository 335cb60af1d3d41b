"""Drives a real browser: Debian's Chromium, which `.ci/run` installs. Without it, tests are skipped."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService

from support.paths import ROOT

AXE = ROOT / ".venv" / "npm" / "node_modules" / "axe-core" / "axe.min.js"
AXE_TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
COLOUR_RULES = {"type": "rule", "values": ["color-contrast", "link-in-text-block"]}
"""The rules of axe whose result depends on the theme of a page: the others look at no colour."""
DESKTOP = (1280, 900)
PHONE = (390, 844)
"""The width and the height of a usual phone, in CSS pixels."""

SHELL = Path("/usr/lib/chromium/chromium-headless-shell")
"""Debian's browser without windows. The script in /usr/bin that starts it would end without it."""
LOADING_S = 10.0
"""How long an element may be missing, while its page loads."""


def has_browser() -> bool:
    """Returns whether a browser and its driver are installed."""
    return bool(_binary() and shutil.which("chromedriver"))


def _binary() -> str | None:
    """Returns the path of the browser. The one without windows of its own needs half of the processor."""
    return str(SHELL) if SHELL.exists() else shutil.which("chromium")


@contextmanager
def browser(*, scripts: bool = True) -> Iterator[Chrome]:
    """Runs a browser while the block runs. Skips the test if there is none."""
    if not has_browser():
        pytest.skip("chromium-headless-shell (or chromium) and chromium-driver are not installed (apt; see .ci/run)")
    options = ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--lang=en"):
        options.add_argument(argument)
    options.binary_location = str(_binary())
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Chrome(options, ChromeService(shutil.which("chromedriver")))
    try:
        driver.implicitly_wait(LOADING_S)
        if not scripts:
            driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
        resize(driver, DESKTOP)
        yield driver
    finally:
        driver.quit()


def resize(driver: Chrome, size: tuple[int, int]) -> None:
    """Sets the size of the page in CSS pixels. A window cannot be as narrow as a phone."""
    width, height = size
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def complaints(driver: Chrome) -> list[str]:
    """Returns the warnings and errors since the last call, such as violations of the content security policy.

    The browser also logs each response with an error status, which tests check themselves.
    """
    logged: list[dict[str, str]] = driver.get_log("browser")  # type: ignore[no-untyped-call]
    serious = [entry for entry in logged if entry["level"] in {"WARNING", "SEVERE"} and entry["source"] != "network"]
    return [entry["message"] for entry in serious]


def accessibility_findings(driver: Chrome, rules: list[str] | dict[str, Any] = AXE_TAGS) -> list[str]:
    """Returns what the rules of axe find on the page, as `RULE: ELEMENT`. Skips the test without axe."""
    if not AXE.exists():
        pytest.skip("axe-core is not installed (npm; see .ci/run)")
    driver.execute_script(AXE.read_text(encoding="utf-8"))
    options = "{runOnly: arguments[0], resultTypes: ['violations']}"
    run = f"axe.run({options}).then(arguments[1], (error) => arguments[1]({{error: String(error)}}))"
    found: dict[str, Any] = driver.execute_async_script(run, rules)
    assert "error" not in found, found
    return [
        f"{item['id']}: {node['html'][:150]} {json.dumps(node['any'][:1])[:300]}"
        for item in found["violations"]
        for node in item["nodes"]
    ]


def is_wider_than_the_window(driver: Chrome) -> bool:
    """Returns whether the page has to be scrolled sideways."""
    return bool(driver.execute_script("return document.documentElement.scrollWidth > innerWidth"))


def parts_beyond_the_window(driver: Chrome) -> list[str]:
    """Returns the beginning of each element that makes the page wider than the window; none if it fits."""
    script = """
        const wide = document.documentElement.scrollWidth > innerWidth
        const beyond = (each) => wide && each.getBoundingClientRect().right > innerWidth && !each.closest(".wide, ul")
        return [...document.body.querySelectorAll("*")].filter(beyond).map((each) => each.outerHTML.slice(0, 120))
    """
    found: list[str] = driver.execute_script(script)
    return found or (["something"] if is_wider_than_the_window(driver) else [])


def picture(driver: Chrome, folder: Path, name: str) -> None:
    """Writes a picture of the window, if CONSOLE_PICTURES asks for pictures: a screenshot takes its time."""
    if "CONSOLE_PICTURES" in os.environ:
        driver.save_screenshot(str(folder / f"{name}.png"))
