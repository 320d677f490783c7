"""The page in Chromium: it loads, follows a run, shows a device that is killed, and can be used by anybody anywhere.

With `-s` the test of a killed device prints how long it took to be seen, which docs/live.md has.
"""

import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from live_site import BLOCK_S, ended
from page_site import PLANNED, Events
from playwright.sync_api import Browser, Page, expect, sync_playwright

import partway
from partway.dashboard.app import serving as serving_page
from partway.dashboard.app import source_of
from partway.dashboard.live import LiveRun
from partway.live.processes import serving
from partway.netcdf import save_dataset

CHROMIUM = shutil.which("chromium")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")]
ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        yield started
        started.close()


class Watched:
    """A tab, with what it has complained of and whom it has asked."""

    def __init__(self, browser: Browser, url: str, size: dict[str, int] = DESKTOP):
        self.tab: Page = browser.new_page(viewport=size)  # pyright: ignore
        self.errors, self.hosts = list[str](), set[str]()
        self.tab.on("console", lambda message: self.errors.append(f"{message.type}: {message.text}"))
        self.tab.on("pageerror", lambda error: self.errors.append(str(error)))
        self.tab.on("request", lambda request: self.hosts.add(urlsplit(request.url).netloc))
        self.tab.on("requestfailed", lambda request: self.errors.append(f"failed: {request.url}"))
        self.tab.goto(url)
        self.says(re.compile("^(?!loading)"))

    def close(self, url: str) -> None:
        """Close the tab. Raises AssertionError if something was wrong, or anybody else was asked."""
        self.tab.close()
        assert self.errors == []
        assert self.hosts <= {urlsplit(url).netloc, ""}

    def says(self, status: str | re.Pattern[str], within_s: float = 10.0) -> None:
        """Wait until the page has this status."""
        expect(self.tab.locator("#said")).to_have_text(status, timeout=1e3 * within_s)

    def text(self, selector: str) -> str:
        return self.tab.inner_text(selector)


def overflow(tab: Page) -> list[str]:
    """What is wider than the window, or is cut off."""
    return tab.evaluate(
        """() => [...document.querySelectorAll('body *')].filter((one) => {
            const box = one.getBoundingClientRect();
            return box.width && !one.closest('.skip') && (box.right > window.innerWidth + 1 || box.left < -1);
        }).map((one) => one.tagName + '.' + one.className)"""
    )


@pytest.fixture
def finished(tmp_path: Path) -> Iterator[str]:
    Events(tmp_path).whole()
    with serving_page(source_of(tmp_path), ("127.0.0.1", 0)) as url:
        yield url


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_a_finished_run_loads_and_fits(size: dict[str, int], browser: Browser, finished: str):
    watched = Watched(browser, finished, size)
    assert watched.text("#title") == "Live run: priced, 3 devices"
    assert watched.text("#said") == "ended, block 40 of 40"
    assert watched.tab.locator(".panel.chart").count() == 3
    assert watched.tab.locator("#bars .panel").count() == 3
    assert watched.tab.locator("#tiles li").count() == 3
    assert "lower bound 9" in watched.text(".panel[data-key=cost]")
    assert overflow(watched.tab) == []
    assert watched.tab.evaluate("document.documentElement.scrollWidth") <= size["width"]
    columns = watched.tab.evaluate("getComputedStyle(document.querySelector('#charts')).gridTemplateColumns").split()
    assert len(columns) == (1 if size is PHONE else 2)
    watched.close(finished)


def test_a_chart_draws_what_it_is_given(browser: Browser, finished: str):
    """The bound of 9 lies at 9/10 of the height of a whole block of 10; the line of the mean ends at its value."""
    watched = Watched(browser, finished)
    edges = watched.tab.evaluate(
        """() => {
            const box = (one) => one.getBBox(), svg = document.querySelector('.panel[data-key=cost] .plot');
            const all = [...svg.querySelectorAll('path')];
            const areas = all.filter((one) => /^a\\d/.test(one.getAttribute('class')));
            return { top: Math.min(...areas.map((one) => box(one).y)), mark: box(svg.querySelector('.mark')).y,
                     floor: box(svg.querySelector('line.axis')).y };
        }"""
    )
    whole, bound = edges["floor"] - edges["top"], edges["floor"] - edges["mark"]
    assert bound / whole == pytest.approx(0.9, abs=0.01)
    watched.close(finished)


def test_the_keyboard_reaches_and_reads_everything(browser: Browser, finished: str):
    watched = Watched(browser, finished)
    tab, stops = watched.tab, list[str]()
    for _ in range(5):
        tab.keyboard.press("Tab")
        stops.append(
            tab.evaluate("document.activeElement.closest('.panel')?.dataset.key ?? document.activeElement.className")
        )
    assert stops[:4] == ["skip", "cost", "queues", "price"]
    tab.focus(".panel[data-key=cost] .plot")
    tab.keyboard.press("Home")
    assert watched.text(".panel[data-key=cost] .where") == "block 0"
    assert "device energy 0" in watched.text(".panel[data-key=cost] .legend")
    tab.keyboard.press("ArrowRight")
    label = tab.get_attribute(".panel[data-key=cost] .plot", "aria-label")
    assert label is not None
    assert "block 1, device queues 6, device energy 2.5" in label
    assert tab.locator(".cursor").count() == 1
    tab.keyboard.press("Escape")
    assert tab.locator(".cursor").count() == 0
    outline = tab.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    watched.close(finished)


def test_a_comparison_is_chosen_from_a_list(browser: Browser, tmp_path: Path):
    dataset = partway.compare("paper", overrides={"devices": 2}, schemes=["local", "priced"], blocks=30, seeds=2)
    save_dataset(dataset, tmp_path)
    with serving_page(source_of(tmp_path), ("127.0.0.1", 0)) as url:
        watched = Watched(browser, url, PHONE)
        tab = watched.tab
        assert tab.locator("#view option").all_inner_texts()[0] == "all schemes"
        assert tab.locator("#charts .panel").count() == 0
        tab.focus("#view")
        tab.keyboard.press("ArrowDown")
        assert tab.locator("#charts .panel").count() == 4
        assert overflow(tab) == []
        tab.wait_for_timeout(1500)
        assert (
            tab.evaluate("performance.getEntriesByName(new URL('state', location).href).length") == 1
        )  # it is finished
        watched.close(url)


def test_the_page_follows_and_can_be_paused(browser: Browser, tmp_path: Path):
    events = Events(tmp_path)
    with serving_page(LiveRun(tmp_path), ("127.0.0.1", 0)) as url:
        watched = Watched(browser, url)
        tab = watched.tab
        assert watched.text("#said") == "waiting for devices, 0 of 3 are there"
        events.begin()
        for number in range(3):
            events.block(number)
        watched.says("running, block 3 of 40")
        tab.focus(".panel[data-key=cost] .plot")
        events.block(3)
        watched.says("running, block 4 of 40")
        assert tab.evaluate("document.activeElement.getAttribute('class')") == "plot"  # focus stays where it was
        tab.focus("#pause")
        tab.keyboard.press("Enter")
        assert tab.get_attribute("#pause", "aria-pressed") == "true"
        events.block(4)
        tab.wait_for_timeout(1000 * 4 * PLANNED["block_s"])
        assert watched.text("#said") == "running, block 4 of 40"
        tab.keyboard.press("Enter")
        watched.says("running, block 5 of 40")
        watched.close(url)


def test_a_device_that_is_killed_is_seen_within_two_blocks(browser: Browser, tmp_path: Path):
    """A server and four devices as processes, around a real network."""
    events = tmp_path / "events"
    events.mkdir()

    def own(name: str) -> list[str]:
        return ["--events", str(events / f"{name}.jsonl")]

    with serving(tmp_path, "--blocks", "100", own=own) as fleet, serving_page(LiveRun(events), ("127.0.0.1", 0)) as url:
        watched = Watched(browser, url)
        tab = watched.tab
        for number in range(4):
            fleet.start(f"device-{number}", "join", fleet.target, "--device", str(number))
        watched.says(re.compile(r"block [34]\d of 100"), 120)
        assert tab.locator("#tiles li.here").count() == 4
        victim = fleet.processes.pop("device-3")
        victim.kill()
        killed, block = time.monotonic(), block_of(tab)
        tab.wait_for_selector("#tiles li.gone", timeout=30_000)
        seen, later = time.monotonic() - killed, block_of(tab)
        victim.wait()
        print(f"\na killed device was seen after {seen:.2f} s, {seen / BLOCK_S:.1f} blocks")
        assert later - block <= 2
        assert watched.text("#tiles li.gone b") == "device 3"
        assert "device 3 was lost" in watched.text("#alerts")
        assert tab.locator("#tiles li.here").count() == 3
        ended(fleet, "server", "device-0", within_s=120)
        watched.says("ended, block 100 of 100")
        assert "waits at the device" in watched.text(".panel[data-key=stages]")
        watched.close(url)


def block_of(tab: Page) -> int:
    """The block that the page shows."""
    said: Any = tab.evaluate("document.querySelector('#said').textContent")
    return int(said.split("block ")[1].split()[0])
