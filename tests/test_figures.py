"""Figures: what is in their CSV files is what the dataset says, and awkward datasets are drawn too."""

import csv
import struct
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import xarray as xr

from partway.experiments.comparison import execute, make_plan
from partway.experiments.statistics import estimate
from partway.experiments.summary import COST_COMPONENTS, LATENCY, summarise
from partway.figures import write_comparison, write_run
from partway.figures.style import FOREIGN, PALETTE, colour
from partway.schemes import SCHEMES

COMPARISON, RUN = ("gap", "cost-over-time", "cost-parts", "tradeoff"), ("cost-over-time", "devices")
TRACED = ("q", "gain", "started", "offload", "power", "cost", "arrivals")


def made_up(
    status: dict[str, tuple[str, str]] | Sequence[str] = ("exact", "local"),
    seeds: int = 3,
    blocks: int = 80,
    traced: Sequence[int] = (),
    **attributes: Any,
) -> xr.Dataset:
    """What `execute` returns, with random numbers; `status`: scheme -> (status, reason)."""
    rows = status if isinstance(status, dict) else dict.fromkeys(status, ("ok", ""))
    random, shape = np.random.default_rng(0), (len(rows), seeds, blocks)
    series = (
        "device_energy_j",
        "server_energy_j",
        "wasted_energy_j",
        "waiting",
        "arrived",
        "started",
        "backlog",
        "sent",
    )
    series += (
        "served",
        "started_work",
        "total_work",
        "cpu_utilisation",
        "radio_utilisation",
        "server_utilisation",
        "power_mismatch",
    )
    variables: dict[str, Any] = {name: (("scheme", "seed", "block"), random.uniform(1, 2, shape)) for name in series}
    scale = np.array([1e9 if state[0] == "unstable" else 1.0 + i for i, state in enumerate(rows.values())])
    cost = random.uniform(1, 2, (*shape, len(COST_COMPONENTS))) * scale[:, None, None, None]
    cost[[state[0] == "not_applicable" for state in rows.values()]] = np.nan
    variables["cost"] = (("scheme", "seed", "block", "part"), cost)
    for name in ("loss_devices", "loss_waiting", "loss_service"):
        variables[name] = (("scheme", "seed", "block"), 0.01 * cost[..., 0] * random.uniform(0, 1, shape))
    variables["latency_s"] = (("scheme", "seed", "statistic"), random.uniform(1, 2, (len(rows), seeds, len(LATENCY))))
    variables["unfinished"] = (("scheme", "seed"), np.zeros((len(rows), seeds)))
    for name, values in zip(("status", "reason"), zip(*rows.values(), strict=True), strict=True):
        variables[name] = ("scheme", list(values))
    for name in ("growth", "signals_up", "signals_down", "heavy_tail"):
        variables[name] = ("scheme", np.ones(len(rows)))
    for name in TRACED if traced else ():
        wholes = random.integers(0, 3, (*shape, len(traced)))
        offload = np.minimum(wholes, random.uniform(0, 1, wholes.shape))
        variables[f"device_{name}"] = (
            ("scheme", "seed", "block", "traced"),
            offload if name == "offload" else 1.0 + wholes,
        )
    labels = {"scheme": list(rows), "seed": range(seeds), "part": list(COST_COMPONENTS), "statistic": list(LATENCY)}
    dataset = xr.Dataset(variables, labels | ({"traced": list(traced)} if traced else {})).expand_dims(device=20)
    own = {"scenario_name": "made-up", "warmup": blocks // 2, "discount": 0.95, "block_s": 0.5, "server": ""}
    own |= {"objective": "average", "bound": 4.0, "bound_price": 1.0, "bound_slack": 0.01, "bound_reason": ""}
    return dataset.isel(device=0).assign(distance_m=("device", np.ones(20))).assign_attrs(own | attributes)


def table(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def column(rows: list[dict[str, str]], name: str, **wanted: str) -> np.ndarray:
    """Numbers of a column where others have the wanted words; what is blank is NaN."""
    chosen = [row for row in rows if all(row[key] == value for key, value in wanted.items())]
    return np.array([float(row[name] or "nan") for row in chosen])


def is_drawn(folder: Path, names: Sequence[str]) -> None:
    """Exactly these figures are there; each PNG is whole and not blank, each SVG well-formed."""
    assert {path.name for path in folder.iterdir()} == {
        f"{name}.{kind}" for name in names for kind in ("png", "svg", "csv")
    }
    for name in names:
        data = (folder / f"{name}.png").read_bytes()
        width, height = struct.unpack(">II", data[16:24])
        assert data.startswith(b"\x89PNG\r\n\x1a\n")
        assert data.endswith(b"IEND\xaeB`\x82")
        assert min(width, height) > 200
        assert ElementTree.parse(folder / f"{name}.svg").getroot().tag == "{http://www.w3.org/2000/svg}svg"


@dataclass(frozen=True)
class Written:
    """A dataset, and the folder its figures are in."""

    dataset: xr.Dataset
    folder: Path


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """A comparison that several tests read, its cheapest scheme not the first."""
    written = Written(
        made_up(["local", "exact", "mine:Policy"]).isel(scheme=[1, 2, 0]), tmp_path_factory.mktemp("several")
    )
    write_comparison(written.dataset, written.folder)
    return written


@pytest.fixture(scope="module")
def one_seed(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """A long comparison of one scheme and one seed."""
    written = Written(made_up(["exact"], seeds=1, blocks=4003), tmp_path_factory.mktemp("one-seed"))
    write_comparison(written.dataset, written.folder)
    return written


def is_drawn_as_summarised(written: Written) -> None:
    is_drawn(written.folder, COMPARISON)
    parts, tradeoff, gaps = (table(written.folder, name) for name in ("cost-parts", "tradeoff", "gap"))
    for one in summarise(written.dataset, reference=None):
        assert one.status == "ok"
        assert column(parts, "cost [per block]", scheme=one.name, part="sum") == pytest.approx(one.cost.mean)
        assert column(parts, "95 % high [per block]", scheme=one.name, part="sum") == pytest.approx(one.cost.high)
        for part in COST_COMPONENTS:
            assert column(parts, "cost [per block]", scheme=one.name, part=part) == pytest.approx(one.parts[part])
        assert column(tradeoff, "latency [s]", scheme=one.name) == pytest.approx(one.latency_s["mean"])
        assert column(tradeoff, "energy [J/task]", scheme=one.name) == pytest.approx(one.device_j + one.server_j)
        assert one.gap is not None
        assert column(gaps, "gap [%]", scheme=one.name) == pytest.approx(100 * one.gap.whole.mean)
        assert column(gaps, "95 % high [%]", scheme=one.name) == pytest.approx(100 * one.gap.whole.high)
        for loser in ("devices", "waiting", "service"):
            assert column(gaps, f"{loser} [%]", scheme=one.name) == pytest.approx(100 * getattr(one.gap, loser))


def test_a_comparison_is_drawn_as_it_is_summarised(several: Written) -> None:
    is_drawn_as_summarised(several)


def test_so_is_what_was_really_run(tmp_path: Path) -> None:
    real = execute(make_plan({"devices": 3}, schemes=["even"], blocks=40, seeds=2))
    write_comparison(real, tmp_path)
    is_drawn_as_summarised(Written(real, tmp_path))


def test_parts_sum_to_the_cost_and_the_cheapest_comes_first(several: Written) -> None:
    rows = table(several.folder, "cost-parts")
    sums = column(rows, "cost [per block]", part="sum")
    assert (np.diff(sums) > 0).all()
    each = np.array([column(rows, "cost [per block]", part=part) for part in COST_COMPONENTS])
    np.testing.assert_allclose(each.sum(axis=0), sums)


def test_cost_over_time_is_the_running_mean_and_its_student_interval(several: Written) -> None:
    rows = table(several.folder, "cost-over-time")
    assert column(rows, "block", scheme="local").tolist() == list(range(1, 80))  # a window of 80 / 40 = 2 blocks
    cost = several.dataset["cost"].sel(scheme="local").sum("part").to_numpy()
    expected = estimate((cost[:, 10] + cost[:, 11]) / 2)
    names = ("cost [per block]", "95 % low [per block]", "95 % high [per block]")
    found = [column(rows, name, scheme="local", block="11").item() for name in names]
    assert found == pytest.approx([expected.mean, expected.low, expected.high])


def test_a_curve_has_a_bounded_number_of_points_and_ends_with_the_run(one_seed: Written) -> None:
    blocks = column(table(one_seed.folder, "cost-over-time"), "block")
    assert blocks[-1] == 4002
    assert blocks[0] >= 99
    assert 350 < len(blocks) <= 450


def test_only_stable_schemes_have_a_trade_off_and_a_mean(tmp_path: Path) -> None:
    status = {
        "exact": ("ok", ""),
        "qlearning": ("ok", "unstable in 1 of 3 seeds"),
        "full": ("unstable", "unstable: work piles up at the devices"),
        "constant": ("not_applicable", "it counts whole tasks"),
    }
    write_comparison(made_up(status), tmp_path)
    is_drawn(tmp_path, COMPARISON)
    assert {row["scheme"] for row in table(tmp_path, "tradeoff")} == {"exact", "qlearning"}
    parts = table(tmp_path, "cost-parts")
    assert [(row["status"], row["cost [per block]"]) for row in parts if row["scheme"] == "full"] == [("unstable", "")]
    assert {row["scheme"] for row in table(tmp_path, "cost-over-time")} == {"exact", "qlearning", "full"}
    words = " ".join((tmp_path / "cost-over-time.svg").read_text(encoding="utf-8").split())
    assert "<!-- full, unstable ▲ -->" in words  # above an axis that follows what is stable in every seed
    assert "<!-- qlearning † ▲ -->" in words
    assert "not drawn: constant, not applicable" in words


def invalid(dataset: xr.Dataset) -> xr.Dataset:
    """The first scheme's numbers become infinite, then undefined, half-way in its only seed."""
    cost = dataset["cost"].copy(deep=True)
    cost[{"scheme": 0, "block": slice(40, 60)}], cost[{"scheme": 0, "block": slice(60, None)}] = np.inf, np.nan
    status, reason = (dataset[name].astype(object) for name in ("status", "reason"))
    status[0], reason[0] = "invalid", "a cost became infinite or undefined"
    return dataset.assign(cost=cost, status=status, reason=reason)


def spiky(dataset: xr.Dataset) -> xr.Dataset:
    """One block of a heavy tail, and a part that is always zero."""
    cost = dataset["cost"].copy(deep=True)
    cost[{"scheme": 0, "block": 30}], cost[{"part": 0}] = 1e30, 0.0
    return dataset.assign(cost=cost)


AWKWARD: dict[str, Callable[[], xr.Dataset]] = {
    "one seed, two blocks, one scheme": lambda: made_up(["exact"], seeds=1, blocks=2),
    "no warm-up, a name that looks like mathematics": lambda: made_up(
        warmup=0, scenario_name=r"$\frac{$_^", server="exact"
    ),
    "many schemes, one with a long name": lambda: made_up(
        [*SCHEMES, *(f"module{i}:Policy" for i in range(12)), "a_package.with.a_long.name:AndAPolicyWithALongName"],
        blocks=20,
    ),
    "all unstable": lambda: made_up({"exact": ("unstable", "unstable: work piles up"), "full": ("unstable", "")}),
    "none applicable": lambda: made_up({"constant": ("not_applicable", "it counts whole tasks")}),
    "invalid": lambda: invalid(made_up(["exact", "local"], seeds=1)),
    "spikes": lambda: spiky(made_up(["exact"])),
    "all alike": lambda: xr.ones_like(made_up()).assign_attrs(made_up().attrs).assign(status=made_up()["status"]),
    "nothing costs anything": lambda: made_up().assign(cost=0 * made_up()["cost"]),
}


@pytest.mark.parametrize("case", AWKWARD)
def test_awkward_comparisons_are_drawn(case: str, tmp_path: Path) -> None:
    write_comparison(AWKWARD[case](), tmp_path)
    is_drawn(tmp_path, COMPARISON)


def test_without_latency_there_is_no_trade_off(tmp_path: Path) -> None:
    write_comparison(made_up().assign(latency_s=np.nan * made_up()["latency_s"]), tmp_path)
    assert table(tmp_path, "tradeoff") == []
    assert "no stable scheme whose latency is known" in (tmp_path / "tradeoff.svg").read_text(encoding="utf-8")


def test_without_a_bound_there_is_no_gap(tmp_path: Path) -> None:
    write_comparison(made_up(bound=np.nan, bound_reason="no bound here"), tmp_path)
    assert table(tmp_path, "gap") == []
    assert "no scheme has a gap: no bound here" in (tmp_path / "gap.svg").read_text(encoding="utf-8")


def test_schemes_come_by_their_gap_the_best_last(several: Written) -> None:
    """Made-up losses grow as costs do: the order of `made_up`, local first."""
    gaps = table(several.folder, "gap")
    assert [row["scheme"] for row in gaps] == ["mine:Policy", "exact", "local"]
    assert (np.diff(column(gaps, "gap [%]")) < 0).all()


def test_schemes_without_a_gap_are_named(tmp_path: Path) -> None:
    write_comparison(made_up({"local": ("ok", ""), "exact": ("ok", ""), "full": ("unstable", "grows")}), tmp_path)
    assert [row["scheme"] for row in table(tmp_path, "gap")] == ["exact", "local"]
    assert "none: full" in (tmp_path / "gap.svg").read_text(encoding="utf-8")


def test_one_seed_has_no_interval(one_seed: Written) -> None:
    assert {row["95 % low [per block]"] for row in table(one_seed.folder, "cost-over-time")} == {""}
    assert "±" not in (one_seed.folder / "cost-parts.svg").read_text(encoding="utf-8")


def test_a_run_shows_the_parts_and_the_devices_of_the_first_seed(tmp_path: Path) -> None:
    dataset = made_up(["exact"], blocks=140, traced=(0, 7))
    write_run(dataset, tmp_path)
    is_drawn(tmp_path, RUN)
    time, devices = table(tmp_path, "cost-over-time"), table(tmp_path, "devices")
    each = np.array([column(time, "cost [per block]", part=part) for part in COST_COMPONENTS])
    np.testing.assert_allclose(each.sum(axis=0), column(time, "cost [per block]", part="sum"))
    assert column(devices, "block", device="7").tolist() == list(range(40, 140))
    own = dataset.isel(scheme=0, seed=0, block=slice(40, None)).sel(traced=7)
    for name, header in (
        ("q", "waiting [tasks]"),
        ("offload", "sent [share of one task]"),
        ("power", "transmit power [W]"),
    ):
        np.testing.assert_allclose(column(devices, header, device="7"), own[f"device_{name}"])
    assert "exact, seed 0, last 100 blocks" in (tmp_path / "devices.svg").read_text(encoding="utf-8")


def silent(dataset: xr.Dataset) -> xr.Dataset:
    """A scheme that sends nothing."""
    return dataset.assign(device_power=0 * dataset["device_power"], device_rest=0 * dataset["device_rest"])


def broken(dataset: xr.Dataset) -> xr.Dataset:
    """Queues and powers that became infinite and undefined."""
    infinite = dataset["device_q"].where(dataset["device_q"] < 2, np.inf)
    return invalid(dataset).assign(device_q=infinite, device_taken=np.nan * infinite, device_power=infinite)


AWKWARD_RUNS: dict[str, Callable[[], xr.Dataset]] = {
    "two blocks": lambda: made_up(["exact"], seeds=1, blocks=2, traced=[3]),
    "unstable": lambda: made_up({"full": ("unstable", "unstable: work piles up")}, traced=[3]),
    "nothing sent": lambda: silent(made_up(["local"], traced=[0, 1])),
    "invalid": lambda: broken(made_up(["exact"], seeds=1, traced=[0])),
    "every device": lambda: made_up(["exact"], blocks=20, traced=range(20)),
}


@pytest.mark.parametrize("case", AWKWARD_RUNS)
def test_awkward_runs_are_drawn(case: str, tmp_path: Path) -> None:
    write_run(AWKWARD_RUNS[case](), tmp_path)
    is_drawn(tmp_path, RUN)


def test_a_run_that_could_not_be_played_has_no_devices(tmp_path: Path) -> None:
    write_run(made_up({"constant": ("not_applicable", "it counts whole tasks")}), tmp_path)
    is_drawn(tmp_path, ["cost-over-time"])
    assert table(tmp_path, "cost-over-time") == []


def test_the_same_data_give_the_same_files_whatever_matplotlib_is_set_to(several: Written, tmp_path: Path) -> None:
    with matplotlib.rc_context({"font.size": 30, "axes.grid": False, "axes.facecolor": "black"}):
        write_comparison(several.dataset, tmp_path)
        assert matplotlib.rcParams["font.size"] == 30
    is_drawn(tmp_path, COMPARISON)
    for path in several.folder.iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes(), path.name


def test_a_scheme_keeps_its_colour() -> None:
    assert len({colour(name) for name in SCHEMES}) == len(SCHEMES) <= len(PALETTE)
    assert colour("mine:Policy") == colour("mine:Policy")
    assert colour("mine:Policy") in FOREIGN
