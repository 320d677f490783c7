"""Write a section of docs/results.md and its pictures: every number in it comes from a run made here.

Takes some minutes.

make results
"""

import io
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pages import origin, write_section
from rich.console import Console

from partway.dnn.profile import read_profile
from partway.experiments import report
from partway.experiments.comparison import execute
from partway.experiments.plan import make_plan
from partway.experiments.summary import Summary, summarise
from partway.figures import profile as profile_report
from partway.netcdf import load_dataset

DOCS = Path(__file__).parents[1] / "docs"
SCENARIOS = ("paper", "ocr", "camera")
RULES = ("priced", "constant", "neurosurgeon", "ans", "dads", "iao")
"""Schemes that are also shown with Algorithm 2 at the server, whose broadcast rate does not depend on its work."""
COMMAND = [sys.executable, "-m", "partway", "compare"]
SHOWN = ("gap", "cost-over-time", "tradeoff")

READING = """
How to read it. `constant` starts the same number of tasks in every block, offloads the same fraction of the last one,
and its server runs at one rate while there is work; the three numbers are tuned on two other seeds, on a grid. A scheme
that learns should cost less. `binary`, `even` and `random` have the paper's Algorithm 2 at the server and pay for the
rates it commands whether there is work or not, as (7) says; `local`, `full`, `myopic` and the rules from related work
have the near-optimal server of `priced` (`--server NAME` gives all schemes the same one). It broadcasts the rate at
which it runs, which follows what is sent, and `dads` and `iao` plan with that rate. Algorithm 2 broadcasts the rate
that it commands, which does not depend on the work. With it they do no better (next table): what they minimise, the
slowest stage or the longest latency at any cost, is not (8). `coedge` is `neurosurgeon-energy` with a deadline that
never binds here, and `ans` learns the delays that `neurosurgeon` computes. `parametric-printed` and `parametric` are
Algorithms 1 and 2, with the printed and with the true gradients; their stopping rule freezes a constant power. On the
real networks of `ocr` and `camera` a change of power has an effect only where it changes the cut, so the gradient of
`parametric` does not contain its cost. `parametric` or a Q-learning scheme is unstable in seeds in which its server
settles at a rate below the arriving work; its mean then has no meaning. `full` can send one task per block.
[paper.md](paper.md) has the details.
"""


def main() -> None:
    """Run everything and write the section."""
    made = origin()  # before minutes in which the code may change
    steady = _comparison("paper", ["--server", "parametric-printed", "--schemes", *RULES])
    parts = [made, "", *(_comparison(name) for name in SCENARIOS), READING, steady, _precision()]
    write_section(DOCS / "results.md", "results", "\n".join(parts))
    figure = profile_report.draw(read_profile("mobilenetv2"), "uint8")
    figure.savefig(DOCS / "img" / "mobilenetv2.png")


def _comparison(scenario: str, flags: Sequence[str] = ()) -> str:
    """The table of one scenario; without flags its pictures under docs/img too."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / scenario
        command = [*COMMAND, "--scenario", scenario, *flags, "--out", str(out)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        (DOCS / "img").mkdir(exist_ok=True)
        for name in () if flags else SHOWN:
            shutil.copy(out / f"{name}.png", DOCS / "img" / f"{scenario}-{name}.png")
        text = io.StringIO()
        report.show(load_dataset(out), Console(file=text, width=100))
    table = "\n".join(line.rstrip() for line in text.getvalue().splitlines())
    pictures = "\n".join(f"![{scenario}: {name}](img/{scenario}-{name}.png)" for name in (() if flags else SHOWN))
    words = " ".join(["partway compare --scenario", scenario, *flags])
    return f"## `{words}`\n\n```\n{table}\n```\n\n{pictures}\n"


def _precision() -> str:
    """Mean costs in both precisions."""
    rows = [summarise(execute(make_plan("paper", precision=precision))) for precision in ("float32", "float64")]
    lines = [
        "| "
        + " | ".join([single.name, _said(single), _said(double), "yes" if _within(single, double) else "no"])
        + " |"
        for single, double in zip(*rows, strict=True)
    ]
    return "\n".join(
        [
            "## float32 and float64",
            "",
            "`partway compare --precision float64`: the same random numbers; is the mean in float32 within the "
            "interval in float64?",
            "",
            "| scheme | float32 | float64 | within |",
            "|---|---|---|---|",
            *lines,
            "",
        ]
    )


def _said(one: Summary) -> str:
    return one.status if one.status != "ok" else f"{one.cost.mean:.5g} ({one.cost.low:.5g} to {one.cost.high:.5g})"


def _within(single: Summary, double: Summary) -> bool:
    if single.status != "ok":
        return single.status == double.status
    return double.cost.low <= single.cost.mean <= double.cost.high


if __name__ == "__main__":
    main()
