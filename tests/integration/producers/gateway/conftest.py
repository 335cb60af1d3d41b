"""A real browser for the tests of the console."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome

from support import browser


@pytest.fixture(scope="session")
def chrome() -> Iterator[Chrome]:
    with browser.browser() as driver:
        yield driver


@pytest.fixture
def driver(chrome: Chrome) -> Iterator[Chrome]:
    """A browser without cookies. At the end of a test it has nothing to complain about."""
    browser.resize(chrome, browser.DESKTOP)
    browser.complaints(chrome)
    yield chrome
    complaints = browser.complaints(chrome)
    chrome.delete_all_cookies()
    assert complaints == []


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Where pictures are written, if CONSOLE_PICTURES names a folder: so that people can look at them."""
    folder = Path(os.environ.get("CONSOLE_PICTURES", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return folder
