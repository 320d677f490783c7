"""Draw docs/img/page.png: the page of a live run in block 145 of 160, in Chromium.

    python scripts/make_page_picture.py [FOLDER]

FOLDER has the events of such a run, `partway live --events FOLDER`; without it the run is made first (a minute). The
page is drawn afterwards, because a browser on the same machine delays the run's messages.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

from partway.dashboard.app import serving
from partway.dashboard.live import LiveRun

PICTURE = Path(__file__).parents[1] / "docs" / "img" / "page.png"
WIDTH, HEIGHT = 1120, 1290
BLOCK = 144


def main(given: list[str]) -> None:
    """Make the run or read it, and take the picture."""
    with tempfile.TemporaryDirectory() as name:
        folder, shown = Path(given[0] if given else f"{name}/events"), Path(name) / "shown"
        if not given:
            subprocess.run([sys.executable, "-m", "partway", "live", "--events", str(folder)], check=True)
        shown.mkdir()
        copy_until(folder, shown)
        take(shown)


def copy_until(folder: Path, shown: Path) -> None:
    """Copy the events until BLOCK was measured."""
    events = {path.name: [*map(json.loads, path.read_text().splitlines())] for path in folder.glob("*.jsonl")}
    measured = (event for event in events["server.jsonl"] if event["event"] == "BlockMeasured")
    end = next(event["time"] for event in measured if event["block"] == BLOCK)
    for name, own in events.items():
        before = (json.dumps(event) + "\n" for event in own if event["time"] <= end)
        (shown / name).write_text("".join(before))


def take(events: Path) -> None:
    """Take the picture of a page."""
    with serving(LiveRun(events, clock=lambda: 0.0), ("127.0.0.1", 0)) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        tab.goto(url)
        expect(tab.locator("#said")).to_have_text(f"running, block {BLOCK + 1} of 160", timeout=60_000.0)
        tab.screenshot(path=PICTURE)
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1:])
