"""The table of a comparison: every number at every width, and what a reader needs to understand it beside it."""

import io
from typing import Any

import numpy as np
import pytest
import xarray as xr
from rich.console import Console
from test_figures import MIXED_STATUS, made_up

from partway.experiments import report
from partway.experiments.numbers import gap_reason
from partway.experiments.summary import summarise, with_gap_reasons
from partway.figures.common import display_name, unstable_note
from partway.measurement.gap import Horizon
from partway.measurement.latency import DELAYS

LONG = "a_package.with.a_long.name:AndAPolicyWithALongName"
WIDTHS = (160, 100, 80, 60, 30)


def printed(dataset: xr.Dataset, width: int = 100) -> list[str]:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    report.show(dataset, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def words(lines: list[str]) -> str:
    return " ".join(" ".join(lines).split())


@pytest.fixture(scope="module")
def several() -> xr.Dataset:
    """A comparison with huge and tiny numbers."""
    dataset = made_up(["neurosurgeon-energy", "constant", LONG])
    scale = np.array([1e7, 1.0, 1e-3])[:, None, None]
    names = ("device_energy_j", "server_energy_j")
    return dataset.assign({name: dataset[name].copy(data=dataset[name] * scale) for name in names})


@pytest.mark.parametrize("width", WIDTHS)
def test_every_number_of_a_comparison_is_printed_at_every_width(width: int, several: xr.Dataset):
    lines = printed(several, width)
    assert max(map(len, lines)) <= width
    text = words(lines)
    for one in summarise(several):
        numbers = [cell for cell in report._row(one)[1:] if cell != "-"]
        numbers += [report.number(value, 3) for value in one.delays_s.values()]
        assert [cell for cell in numbers if f" {cell} " not in f"{text} "] == []


@pytest.mark.parametrize("width", WIDTHS)
def test_every_number_of_a_run_is_printed_at_every_width(width: int):
    dataset = made_up(["priced"])
    lines = printed(dataset, width)
    assert max(map(len, lines)) <= width
    text = words(lines)
    (one,) = summarise(dataset, reference=None)
    values = [words([cell]) for row in report._lines(one, 4.0) for cell in row]
    assert [cell for cell in values if cell not in text] == []


def test_the_bound_and_the_noise_are_explained_below_the_costs(several: xr.Dataset):
    """The cost of a finite run can be below the bound, and its ratio is not the gap."""
    lines = printed(several)
    at = next(i for i, line in enumerate(lines) if line.startswith("gap to bound: "))
    assert at < next(i for i, line in enumerate(lines) if line.startswith("Mean latency by part"))
    note = words(lines[at : at + 4])
    assert note.startswith("gap to bound: distance from the proven lower bound, 4 (docs/bound.md), ")
    assert "a cost can be below the bound, and cost / bound - 1 is not the gap." in note
    alone = words(printed(made_up(["priced"])))
    assert "lower bound 4 for every policy (docs/bound.md); the noisy cost of a finite run" in alone


def test_the_delays_are_below_the_latencies_that_they_add_up_to(several: xr.Dataset):
    for one in summarise(several):
        assert list(one.delays_s) == list(DELAYS)
        expected = several["delay_s"].sel(scheme=one.name).mean("seed")
        assert list(one.delays_s.values()) == pytest.approx(expected.values.tolist())
    lines = printed(several)
    start = lines.index("Mean latency by part [s]")
    assert lines[start + 1].split() == ["device", "device", "radio", "server", "server"]
    assert lines[start + 2].split() == ["scheme", "waits", "computes", "sends", "waits", "computes", "in", "all"]
    assert len(lines[start + 3].split()) == 7


def test_without_latency_there_are_no_delays():
    unknown = made_up().assign(latency_s=np.nan * made_up()["latency_s"])
    assert "Mean latency by part [s]" not in printed(unknown)


def test_marks_and_reasons_are_explained():
    lines = printed(made_up(MIXED_STATUS))
    assert any(line.startswith("qlearning†*") for line in lines)
    assert "†: unstable in some seeds: its means depend on the length of the run." in lines
    assert "full: unstable: work piles up at the devices, by 1 mean tasks per block" in lines


def test_a_note_on_actions_is_not_taken_for_instability():
    """`reason` of a stable scheme can also say that its actions were clipped."""
    dataset = made_up({"exact": ("ok", "12 actions out of range were clipped"), "local": ("ok", "")})
    lines = printed(dataset)
    assert any(line.startswith("exact* ") for line in lines)
    assert "exact: 12 actions out of range were clipped" in lines
    assert not [line for line in lines if "†" in line]
    exact, _ = summarise(dataset)
    assert display_name(exact) == "exact"
    assert unstable_note([exact]) == ""


def test_a_scheme_without_a_gap_says_why_beside_the_table():
    lost = made_up().copy(deep=True)
    lost["loss_waiting"][0, 0, 3] = np.inf
    assert "exact: no gap, a loss against the lower bound became infinite or undefined" in printed(lost)
    text = words(printed(made_up(bound=np.nan, bound_reason="no bound here")))
    assert "gap to bound: no bound here" in text
    assert "no gap," not in text


def losses(value: float) -> Any:
    return lambda name: np.full((2, 4), value)


@pytest.mark.parametrize(
    ("status", "bound", "loss", "reason"),
    [
        ("ok", 4.0, 0.1, ""),
        ("unstable", 4.0, 0.1, "the scheme is unstable"),
        ("not_applicable", 4.0, np.nan, "the scheme is not applicable"),
        ("failed", 4.0, np.nan, "the scheme has failed"),
        ("ok", 4.0, np.nan, "a loss against the lower bound became infinite or undefined"),
        ("ok", None, np.nan, "no bound here"),
        ("unstable", None, np.nan, "no bound here"),
    ],
)
def test_there_is_a_gap_or_a_reason(status: str, bound: float | None, loss: float, reason: str):
    no_bound = "no bound here" if bound is None else ""
    horizon = Horizon(warmup=2, discount=0.9, objective="average", block_s=0.5, bound=bound, no_bound=no_bound)
    assert gap_reason(status, horizon, losses(loss)) == reason


def test_table_json_and_dataset_agree_on_who_has_a_gap():
    """Losses are there for the schemes that have a gap, a reason for the others."""
    dataset = with_gap_reasons(made_up(MIXED_STATUS))
    has_gap = {one.name for one in summarise(dataset) if one.gap}
    assert has_gap == {"exact", "qlearning"}
    for one in summarise(dataset):
        assert dataset["gap_reason"].sel(scheme=one.name).item() == (one.no_gap or "")
        known = [np.isfinite(dataset[f"loss_{loss}"].sel(scheme=one.name)).all() for loss in ("devices", "waiting")]
        assert known == [one.name in has_gap] * 2
        assert bool(one.no_gap) == (one.gap is None)
    assert dataset["loss_devices"].attrs["units"] == "cost per block"
