"""docs/environments.md: its programs run, one after the other, as a reader types them in."""

import os
import re
import runpy
import subprocess
from pathlib import Path
from typing import Any

import pytest

from partway.controllers.observation import DEVICE_NUMBERS

ROOT = Path(__file__).parents[1]
AGENTS = Path(os.environ.get("PARTWAY_AGENTS", ROOT / ".venv" / "agents" / "bin" / "python"))
"""The Python of an environment that has PyTorch and stable-baselines3."""
PAGE = (ROOT / "docs" / "environments.md").read_text("utf-8")
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


@pytest.mark.slow
def test_the_programs_of_the_page_run(capsys: pytest.CaptureFixture[str]):
    programs = "\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
    for large, small in SMALLER.items():
        assert large in programs
        programs = programs.replace(large, small)
    names: dict[str, Any] = {"__name__": "page"}
    exec(compile(programs, "environments.md", "exec"), names)
    last, worth, gap = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"\d+ tasks wait, the last block cost \d+\.\d", last)
    assert re.fullmatch(r"\d+\.\d per block, 95 % of tasks within (\d+\.\d|nan) s", worth)
    assert re.fullmatch(r"[\d.]+% above the bound: devices [\d.]+%, waiting [\d.]+%, service [\d.]+%", gap)
    assert names["rewards"].shape == (2,)
    assert not names["env"].agents


@pytest.mark.slow
def test_the_example_of_independent_ppo_learns(capsys: pytest.CaptureFixture[str]):
    """With a budget of seconds: rewards grow, and the gap of what was learned is told beside those of schemes."""
    example = runpy.run_path(str(ROOT / "examples" / "ippo.py"))
    example["main"]({"devices": 3}, seeds=1, updates=160, blocks=60)
    budget, found, *others = capsys.readouterr().out.splitlines()
    assert budget == "1 seeds, 160 updates, 122,880 device-steps each"
    said = re.fullmatch(
        r"ippo, seed 0: [\d.]+ % above the bound, reward (-[\d.]+) at first, (-[\d.]+) at the end", found
    )
    assert said
    assert float(said[2]) > 0.7 * float(said[1])
    assert [line.split(":")[0] for line in others] == ["constant", "priced"]


IN_ITS_ENVIRONMENT = """
import runpy, sys, warnings

import gymnasium
from stable_baselines3.common.env_checker import check_env

import partway.env

warnings.simplefilter("error")
for name, how in (("Device", {"training": 5}), ("System", {})):
    check_env(gymnasium.make(f"partway/{name}-v0", scenario={"devices": 3}, **how).unwrapped)
runpy.run_path(sys.argv[1])["main"]({"devices": 4}, devices=4, seeds=1, steps=512, blocks=60)
"""


@pytest.mark.slow
@pytest.mark.skipif(not AGENTS.exists(), reason="`make test-slow` installs stable-baselines3 into .venv/agents")
def test_stable_baselines_accepts_the_environments_and_its_example_runs():
    command = [str(AGENTS), "-c", IN_ITS_ENVIRONMENT, str(ROOT / "examples" / "ppo.py")]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    budget, found, *others = done.stdout.splitlines()
    assert budget == "1 seeds, 512 device-steps each"
    assert re.fullmatch(r"ppo, seed 0: [\d.]+ % above the bound", found)
    assert [line.split(":")[0] for line in others] == ["constant", "priced"]


def test_the_table_of_what_a_device_observes_has_every_number():
    rows = re.findall(r"^\| (\d) \| (\w+)", PAGE, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(len(DEVICE_NUMBERS)))
