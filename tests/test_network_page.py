"""What docs/network.md and the README show of `partway cut` and `partway profile` is what these commands print."""

import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest

from partway.cli.main import main

ROOT = Path(__file__).parents[1]
SHOWN = [
    (page, *block)
    for page in ("docs/network.md", "README.md")
    for block in re.findall(r"```console\n\$ (partway [^\n]*)\n(.*?)```", (ROOT / page).read_text("utf-8"), re.DOTALL)
]


def test_both_pages_show_output():
    assert {page for page, *_ in SHOWN} == {"docs/network.md", "README.md"}


@pytest.mark.parametrize(("page", "command", "shown"), SHOWN)
def test_the_output_shown_is_printed(page: str, command: str, shown: str, monkeypatch: pytest.MonkeyPatch):
    """Line by line; `...` stands for any lines."""
    monkeypatch.setenv("COLUMNS", "100")
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()):
        assert main(shlex.split(command)[1:]) == 0
    printed = "".join(f"{line.rstrip()}\n" for line in out.getvalue().splitlines())
    pattern = re.escape(shown).replace(re.escape("...\n"), "(?:.*\n)*")
    assert re.fullmatch(pattern, printed), printed
