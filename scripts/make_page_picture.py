"""Draw docs/img/page.png: the page of `partway live --page` in Chromium, towards the end of a run (two minutes)."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

PICTURE = Path(__file__).parents[1] / "docs" / "img" / "page.png"
WIDTH, HEIGHT = 1120, 1290
BLOCK = re.compile(r"block 14\d of 160")
PATIENCE_MS = 600_000.0


def main() -> None:
    """Run it, wait, and take the picture."""
    command = [sys.executable, "-m", "partway", "live", "--page"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run, sync_playwright() as playwright:
        assert run.stdout is not None
        url = run.stdout.readline().removeprefix("page at ").strip()
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        tab.goto(url)
        expect(tab.locator("#said")).to_have_text(BLOCK, timeout=PATIENCE_MS)
        tab.screenshot(path=PICTURE)
        browser.close()
        run.communicate()


if __name__ == "__main__":
    main()
