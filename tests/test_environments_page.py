"""docs/environments.md: its programs run, one after the other, as a reader types them in."""

import re
from pathlib import Path
from typing import Any

import pytest

from partway.controllers.observation import DEVICE_NUMBERS

PAGE = (Path(__file__).parents[1] / "docs" / "environments.md").read_text("utf-8")
SMALLER = {
    '"paper"': '{"devices": 3}',
    "horizon=200": "horizon=5, training=5",
    "range(200)": "range(5)",
    "num_envs=128": "num_envs=2",
    "max_cycles=50": "max_cycles=3",
    "training=500": "training=5",
    "64": "2",
    "blocks=400": "blocks=30",
}
"""What makes the programs small: the text on the page, and what stands in its place here."""


def test_the_programs_of_the_page_run(capsys: pytest.CaptureFixture[str]):
    programs = "\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
    for large, small in SMALLER.items():
        assert large in programs
        programs = programs.replace(large, small)
    names: dict[str, Any] = {"__name__": "page"}
    exec(compile(programs, "environments.md", "exec"), names)
    last, worth, gap = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"\d+ tasks wait, the last block has cost \d+\.\d", last)
    assert re.fullmatch(r"\d+\.\d per block, 95 % of tasks within (\d+\.\d|nan) s", worth)
    assert re.fullmatch(r"[\d.]+% above the bound: devices [\d.]+%, waiting [\d.]+%, service [\d.]+%", gap)
    assert names["rewards"].shape == (2,)
    assert not names["env"].agents


def test_the_table_of_what_a_device_observes_has_every_number():
    rows = re.findall(r"^\| (\d) \| (\w+)", PAGE, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(len(DEVICE_NUMBERS)))
