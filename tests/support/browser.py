"""Headless Chromium (Debian's packages chromium and chromium-driver)."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.support.wait import WebDriverWait

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


@contextmanager
def open_browser() -> Iterator[webdriver.Chrome]:
    """A browser that keeps what pages write to the console."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(BROWSER)
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    try:
        yield driver
    finally:
        driver.quit()


def open_page(driver: webdriver.Chrome, page: Path, width: int, theme: str) -> None:
    """Show a report at a width in CSS pixels, in the light or the dark theme, and wait until it is drawn."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    feature = {"name": "prefers-color-scheme", "value": theme}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    driver.get(page.as_uri())
    WebDriverWait(driver, 60).until(lambda _: run_script(driver, "document.documentElement.dataset.drawn === 'yes'"))


def console_of(driver: webdriver.Chrome) -> list[dict[str, Any]]:
    """What pages have written to the console since it was asked for last."""
    found: list[dict[str, Any]] = driver.get_log("browser")  # type: ignore[no-untyped-call]
    return found


def click_at(driver: webdriver.Chrome, x: float, y: float) -> None:
    """Move the mouse to a place in the window, in CSS pixels, and click there."""
    mouse = ActionChains(driver)
    mouse.w3c_actions.pointer_action.move_to_location(int(x), int(y))  # type: ignore[no-untyped-call]
    mouse.pause(0.3).click().perform()


def run_script(driver: webdriver.Chrome, expression: str) -> Any:
    """The value of an expression in the page."""
    return driver.execute_script(f"return {expression}")
