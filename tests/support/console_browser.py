"""Acts in the console as a person does, in a real browser."""

import asyncio
from collections.abc import Callable

from selenium.common.exceptions import WebDriverException
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.expected_conditions import text_to_be_present_in_element
from selenium.webdriver.support.wait import WebDriverWait

WAIT_S = 30.0
"""How long a loaded machine may take to show a page."""


def click(driver: Chrome, selector: str) -> None:
    """Clicks an element, also of a page that is loaded again in between."""

    def clicked(page: Chrome) -> bool:
        page.find_element(By.CSS_SELECTOR, selector).click()
        return True

    waiting(driver).until(clicked)


def waiting(driver: Chrome) -> WebDriverWait[Chrome]:
    """Returns a wait for a page that may be loaded again in between, which the browser reports as various errors."""
    return WebDriverWait(driver, WAIT_S, ignored_exceptions=[WebDriverException])


def press(driver: Chrome, *keys: str) -> None:
    """Types into the element that has the focus."""
    driver.switch_to.active_element.send_keys(*keys)


def shown(driver: Chrome, selector: str, part: str) -> None:
    """Waits until an element of the page has a text, whichever page is open at first."""
    waiting(driver).until(text_to_be_present_in_element((By.CSS_SELECTOR, selector), part))


async def drive(journey: Callable[[], None]) -> None:
    """Runs what a person does, while the gateway serves in the event loop."""
    await asyncio.to_thread(journey)
