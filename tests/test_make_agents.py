"""scripts/make_agents.py: the page is written from complete data, and what is missing is said in one line."""

from pathlib import Path

import make_agents
import pytest


def run_page(monkeypatch: pytest.MonkeyPatch, data: Path) -> None:
    """`make_agents.py --page` with this data, which must not write a page."""
    monkeypatch.setattr(make_agents, "DATA", data)
    monkeypatch.setattr(make_agents, "PICTURE", data.with_suffix(".png"))
    monkeypatch.setattr(make_agents, "write_section", lambda *_: pytest.fail("a page was written"))
    monkeypatch.setattr("sys.argv", ["make_agents.py", "--page"])
    make_agents.main()


def test_the_data_of_the_page_is_complete():
    assert make_agents.missing(make_agents.stored()) == []


def test_data_that_is_not_complete_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    lines = make_agents.DATA.read_text().splitlines(keepends=True)
    kept = [line for line in lines if not line.startswith(("scheme,priced,", "result,ppo,0.001,9,", "tuning,ippo,"))]
    (tmp_path / "agents.csv").write_text("".join(kept))
    with pytest.raises(SystemExit) as ended:
        run_page(monkeypatch, tmp_path / "agents.csv")
    assert str(ended.value) == (
        "agents.csv is incomplete: 0 of 1 scheme rows of priced, 9 of 10 result rows of ppo, 0 of 3 tuning rows of "
        "ippo. `make agents` computes what is missing."
    )
    assert not (tmp_path / "agents.png").exists()


def test_no_data_is_said_and_no_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(SystemExit, match="0 of 1 scheme rows of constant"):
        run_page(monkeypatch, tmp_path / "agents.csv")
