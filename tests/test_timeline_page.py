"""The timeline's page in a real browser."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from test_timeline import records, result

from agentscripts import RunStatus
from agentscripts._report import write_timeline

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,  # each test starts a browser
    pytest.mark.skipif(
        not (BROWSER and DRIVER), reason="chromium and chromedriver are not installed"
    ),
]

HOSTILE = "<img src=x onerror=document.title='owned'>"


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    """A browser that logs what its pages report."""
    options = Options()
    options.binary_location = str(BROWSER)
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.add_argument(f"--user-data-dir={tmp_path / 'profile'}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(DRIVER))
    browser.set_window_size(1100, 800)
    yield browser
    browser.quit()


@pytest.fixture
def page(driver: webdriver.Chrome, tmp_path: Path) -> webdriver.Chrome:
    """The page of five runs, open."""
    path = tmp_path / "timeline.html"
    runs = records(
        result("clone", 0, 2, tail=("Cloning", "done")),
        result("venv", 0, 1),
        result("install", 2, 5, "clone", "venv", exit_code=0, cpu_seconds=1.5, max_rss=2**24),
        result(HOSTILE, 0, 1, tail=(HOSTILE,)),
        result("tests", 5, 6, "install", status=RunStatus.FAILED, exit_code=3),
        result("deploy", 6, 6, "tests", status=RunStatus.SKIPPED),
    )
    write_timeline(path, runs, HOSTILE)
    driver.get(path.as_uri())
    return driver


def bar(page: webdriver.Chrome, label: str) -> WebElement:
    (found,) = [
        one
        for one in page.find_elements(By.CSS_SELECTOR, "a.bar")
        if str(one.get_attribute("aria-label")).startswith(f"{label}: ")
    ]
    return found


def shown(page: webdriver.Chrome) -> list[str]:
    """The texts of the runs whose details can be seen."""
    runs = page.find_elements(By.CSS_SELECTOR, ".run")
    return [one.text for one in runs if one.is_displayed()]


def test_bars_and_arrows(page: webdriver.Chrome) -> None:
    """Timeline: bars lie where their time is, arrows lead from end to begin, the path is marked."""
    clone, install, tests = (bar(page, name).rect for name in ("clone", "install", "tests"))
    assert clone["x"] + clone["width"] == pytest.approx(install["x"], abs=2)
    assert install["width"] == pytest.approx(1.5 * clone["width"], rel=0.02)
    assert tests["x"] == pytest.approx(install["x"] + install["width"], abs=2)
    arrows = page.find_elements(By.CSS_SELECTOR, "path.arrow")
    assert len(arrows) == 4
    ends = sorted(
        (arrow.rect["x"] + arrow.rect["width"], arrow.rect["y"] + arrow.rect["height"])
        for arrow in arrows
    )
    assert ends[0][0] == pytest.approx(install["x"], abs=2)
    assert ends[0][1] == pytest.approx(install["y"] + install["height"] / 2, abs=3)
    critical = page.find_elements(By.CSS_SELECTOR, "a.bar.critical")
    names = [str(one.get_attribute("aria-label")).partition(":")[0] for one in critical]
    assert names == ["clone", "install", "tests"]
    text = page.find_element(By.CSS_SELECTOR, ".critical-path").text
    assert text == "Critical path, 6 s: clone → install → tests"
    assert "never" in str(bar(page, "deploy").get_attribute("class"))


def test_click_and_keyboard(page: webdriver.Chrome) -> None:
    """Timeline: a click or Enter on a bar shows its run, and only that."""
    assert shown(page) == []
    bar(page, "clone").click()
    (text,) = shown(page)
    assert "Cloning\ndone" in text
    bar(page, "install").send_keys(Keys.ENTER)
    (text,) = shown(page)
    assert "CPU time\n1.5 s\nmemory\n16.0 MiB" in text
    page.find_element(By.CSS_SELECTOR, ".run:target .close").click()
    assert shown(page) == []
    body = page.find_element(By.TAG_NAME, "body")
    for _ in range(3):
        body.send_keys(Keys.TAB)
    assert "bar" in str(page.switch_to.active_element.get_attribute("class"))


def test_hostile_text(page: webdriver.Chrome) -> None:
    """Timeline: a name that is HTML is shown as it is, and nothing runs or is fetched."""
    bar(page, HOSTILE).click()
    (text,) = shown(page)
    assert text.count(HOSTILE) == 2
    assert page.title == HOSTILE
    assert page.find_elements(By.TAG_NAME, "img") == []
    assert page.get_log("browser") == []
    requests = [
        entry["message"]
        for entry in page.get_log("performance")
        if '"Network.requestWillBeSent"' in entry["message"]
    ]
    assert any('"url":"file:' in one for one in requests)
    assert not any('"url":"http' in one for one in requests)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark(page: webdriver.Chrome, scheme: str) -> None:
    """Timeline: text and page differ clearly in both."""
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    lightness = "return getComputedStyle(document.body).{}.match(/\\d+/g).slice(0,3).map(Number)"
    text, background = (
        sum(page.execute_script(lightness.format(name))) / 3
        for name in ("color", "backgroundColor")
    )
    assert (text < background) == (scheme == "light")
    assert abs(text - background) > 150


def test_narrow_and_print(page: webdriver.Chrome) -> None:
    """Timeline: 400 pixels need no scrolling to the side; print shows what failed."""
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": False},
    )
    width = page.execute_script("return document.documentElement.scrollWidth")
    assert width <= 400
    assert bar(page, "tests").rect["width"] > 5
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    (text,) = shown(page)
    assert text.startswith("✗ tests")
