"""Figures: what is drawn is what the dataset says, it can be read, and awkward datasets are drawn too."""

import contextlib
import csv
import io
import struct
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PathCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

import partway
from partway.cli.main import main
from partway.errors import InputError
from partway.experiments.comparison import execute
from partway.experiments.numbers import LATENCY
from partway.experiments.plan import make_plan
from partway.experiments.statistics import estimate
from partway.experiments.summary import Summary, summarise
from partway.experiments.variables import describe
from partway.figures import FIGURES, Kind, Look, write_comparison, write_run
from partway.figures.captions import latex
from partway.figures.colours import (
    COMPONENT_COLOURS,
    OTHER_COLOURS,
    PAPER_COLOURS,
    PAPER_ORDER,
    PAPER_OTHER_COLOURS,
    SCHEME_COLOURS,
    scheme_colour,
    scheme_dashes,
    scheme_marker,
    text_colour,
)
from partway.figures.common import COMPONENT_DIMENSION
from partway.figures.gap import BELOW_BOUND, LOSSES
from partway.figures.intervals import largest_by_seed, mean_and_interval, running_mean
from partway.figures.layout import fit_margins
from partway.figures.style import StyleName, as_text, figure_style, outside_mathematics
from partway.measurement.gap import COMPONENT_NAMES, COST_COMPONENTS
from partway.measurement.latency import DELAYS
from partway.netcdf import save_dataset
from partway.schemes import SCHEMES

TRACED = (
    *("q", "gain", "started", "offload", "power", "cost", "arrivals", "cpu_hz", "cpu_energy_j", "radio_energy_j"),
)
SERIES = (
    *("device_energy_j", "server_energy_j", "wasted_energy_j", "waiting", "arrived", "started", "backlog", "sent"),
    *("served", "started_work", "total_work", "cpu_utilisation", "radio_utilisation", "server_utilisation"),
    "power_mismatch",
)


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
    variables: dict[str, Any] = {name: (("scheme", "seed", "block"), random.uniform(1, 2, shape)) for name in SERIES}
    scale = np.array([1e9 if state[0] == "unstable" else 1.0 + i for i, state in enumerate(rows.values())])
    cost = random.uniform(1, 2, (*shape, len(COST_COMPONENTS))) * scale[:, None, None, None]
    cost[[state[0] == "not_applicable" for state in rows.values()]] = np.nan
    variables["cost"] = (("scheme", "seed", "block", COMPONENT_DIMENSION), cost)
    for name in ("loss_devices", "loss_waiting", "loss_service"):
        variables[name] = (("scheme", "seed", "block"), 0.01 * cost[..., 0] * random.uniform(0, 1, shape))
    variables["latency_s"] = (("scheme", "seed", "statistic"), random.uniform(1, 2, (len(rows), seeds, len(LATENCY))))
    variables["delay_s"] = (("scheme", "seed", "delay"), random.uniform(0, 1, (len(rows), seeds, len(DELAYS))))
    variables["unfinished"] = (("scheme", "seed"), np.zeros((len(rows), seeds)))
    for name, values in zip(("status", "reason"), zip(*rows.values(), strict=True), strict=True):
        variables[name] = ("scheme", list(values))
    for name in ("growth_per_block", "signals_up", "signals_down", "heavy_tail"):
        variables[name] = ("scheme", np.ones(len(rows)))
    for name in TRACED if traced else ():
        whole = random.integers(0, 3, (*shape, len(traced)))
        values = np.minimum(whole, random.uniform(0, 1, whole.shape)) if name == "offload" else 1.0 + whole
        variables[f"device_{name}"] = (("scheme", "seed", "block", "traced"), values)
    labels: dict[str, Any] = {"scheme": list(rows), "seed": range(seeds), COMPONENT_DIMENSION: list(COST_COMPONENTS)}
    labels |= {"statistic": list(LATENCY), "delay": list(DELAYS), "block": range(blocks)}
    dataset = xr.Dataset(variables, labels | ({"traced": list(traced)} if traced else {})).expand_dims(device=20)
    facts = {"scenario_name": "made-up", "warmup": blocks // 2, "discount": 0.95, "block_s": 0.5, "server": ""}
    facts |= {"objective": "average", "bound": 4.0, "bound_price": 1.0, "bound_slack": 0.01, "bound_reason": ""}
    return describe(dataset.isel(device=0).assign(distance_m=("device", np.ones(20)))).assign_attrs(facts | attributes)


class Drawn(NamedTuple):
    """A figure, laid out but not saved, and the rows of its CSV file by column."""

    figure: Figure
    rows: list[dict[str, Any]]

    @property
    def axes(self) -> Axes:
        return self.figure.axes[0]

    def column(self, name: str, **wanted: Any) -> np.ndarray:
        """Numbers of a column in the rows that have the wanted values in others."""
        chosen = [row for row in self.rows if all(row[key] == value for key, value in wanted.items())]
        return np.array([row[name] for row in chosen], np.float64)

    def texts(self) -> list[str]:
        return [text.get_text() for text in visible_texts(self.figure)]


def draw(
    name: str,
    dataset: xr.Dataset,
    kind: Kind = "comparison",
    summaries: Sequence[Summary] | None = None,
    style: StyleName = "screen",
    labels: dict[str, str] | None = None,
) -> Drawn:
    with figure_style(style, labels, dataset["scheme"].values.tolist()):
        drawn = FIGURES[kind][name](dataset, summaries or summarise(dataset, reference=None))
        assert drawn
        figure, (head, *rows) = drawn
        fit_margins(figure)
    return Drawn(figure, [dict(zip(head, row, strict=True)) for row in rows])


def visible_texts(figure: Figure) -> Iterator[Text]:
    """All text that is drawn somewhere."""
    for text in figure.findobj(Text):
        owner = text.axes
        if text.get_visible() and text.get_text() and (owner is None or owner.get_visible()):
            yield text


def names_of_rows(axes: Axes) -> list[str]:
    """What stands left of a panel, from below."""
    names = [text for text in axes.texts if text.get_position()[0] < 0]
    return [text.get_text() for text in sorted(names, key=lambda text: text.get_position()[1])]


def only(axes: Axes, kind: type[Any]) -> Any:
    (artist,) = [one for one in axes.get_children() if type(one) is kind]
    return artist


def boxes_on_page(figure: Figure) -> dict[str, Bbox]:
    """Where panels, with all their text, and the texts of the figure are [pixel]."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    panels = [axes for axes in figure.axes if axes.get_visible()]
    boxes = {f"panel {i}": axes.get_tightbbox(renderer) for i, axes in enumerate(panels)}
    boxes |= {f"text {text.get_text()[:20]}": text.get_window_extent(renderer) for text in figure.texts}
    return boxes | {f"legend {i}": legend.get_window_extent(renderer) for i, legend in enumerate(figure.legends)}


def check_readable(figure: Figure) -> None:
    """Nothing is cut off, and neither panels nor what stands around them overlap."""
    boxes, page = boxes_on_page(figure), figure.bbox
    for name, box in boxes.items():
        assert page.x0 <= box.x0 <= box.x1 <= page.x1, name
        assert page.y0 <= box.y0 <= box.y1 <= page.y1, name
    names = list(boxes)
    for i, name in enumerate(names):
        for other in names[i + 1 :]:
            assert not boxes[name].overlaps(boxes[other]), (name, other)


def table(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def check_files(folder: Path, names: Collection[str]) -> None:
    """Exactly these figures are there; each PNG is whole and not blank, each SVG well-formed."""
    kinds = ("png", "svg", "csv")
    assert {path.name for path in folder.iterdir()} == {f"{name}.{kind}" for name in names for kind in kinds}
    for name in names:
        data = (folder / f"{name}.png").read_bytes()
        width, height = struct.unpack(">II", data[16:24])
        assert data.startswith(b"\x89PNG\r\n\x1a\n")
        assert data.endswith(b"IEND\xaeB`\x82")
        assert min(width, height) > 200
        assert ElementTree.parse(folder / f"{name}.svg").getroot().tag == "{http://www.w3.org/2000/svg}svg"


@pytest.fixture(scope="module")
def several() -> xr.Dataset:
    """A comparison that several tests read, its cheapest scheme not the first."""
    return made_up(["local", "exact", "mine:Policy"]).isel(scheme=[1, 2, 0])


@pytest.fixture(scope="module")
def one_seed() -> xr.Dataset:
    """A long comparison of one scheme and one seed."""
    return made_up(["exact"], seeds=1, blocks=4003)


MIXED_STATUS = {
    "exact": ("ok", ""),
    "qlearning": ("ok", "unstable in 1 of 3 seeds"),
    "full": ("unstable", "unstable: work piles up at the devices"),
    "constant": ("not_applicable", "it counts whole tasks"),
}


@pytest.fixture(scope="module")
def mixed_status() -> xr.Dataset:
    return made_up(MIXED_STATUS)


def check_summaries(dataset: xr.Dataset) -> None:
    """The numbers in the figures are those of the summaries."""
    components, tradeoff, gaps = (draw(name, dataset) for name in ("cost-components", "tradeoff", "gap"))
    for one in summarise(dataset, reference=None):
        assert one.status == "ok"
        total = {"scheme": one.name, "component": "total"}
        assert components.column("cost [per block]", **total) == pytest.approx(one.cost.mean)
        assert components.column("95 % high [per block]", **total) == pytest.approx(one.cost.high)
        for name, cost in one.cost_components.items():
            assert components.column("cost [per block]", scheme=one.name, component=name) == pytest.approx(cost)
        assert tradeoff.column("latency [s]", scheme=one.name) == pytest.approx(one.latency_s["mean"])
        assert tradeoff.column("device energy [J/task]", scheme=one.name) == pytest.approx(one.device_j)
        both = [tradeoff.column(f"{name} [cost per block]", scheme=one.name) for name in ("waiting", "energy")]
        assert sum(both) == pytest.approx(one.cost.mean)
        server, device = (one.cost_components[f"{party}_energy"] for party in ("server", "device"))
        assert both[1] == pytest.approx(server + device)
        check_gap(gaps, one)


def check_gap(gaps: Drawn, one: Summary) -> None:
    assert one.gap is not None
    assert gaps.column("gap [%]", scheme=one.name) == pytest.approx(100 * one.gap.whole.mean)
    assert gaps.column("95 % high [%]", scheme=one.name) == pytest.approx(100 * one.gap.whole.high)
    for name in ("devices", "waiting", "service"):
        assert gaps.column(f"{name} [%]", scheme=one.name) == pytest.approx(100 * getattr(one.gap, name))


def test_the_numbers_are_those_of_the_summaries(several: xr.Dataset):
    check_summaries(several)


def test_a_real_comparison_is_drawn_and_made_up_ones_look_like_it():
    real = execute(make_plan({"devices": 3}, schemes=["local"], blocks=40, seeds=2), trace=(1,))
    check_summaries(real)
    mine = made_up(["local"], seeds=2, blocks=40, traced=(1,))
    assert {name: mine[name].dims for name in mine.data_vars} == {name: real[name].dims for name in mine.data_vars}
    assert set(mine.attrs) <= set(real.attrs)


def test_bars_are_the_cost_components_stacked_cheapest_first(several: xr.Dataset):
    drawn = draw("cost-components", several)
    totals = drawn.column("cost [per block]", component="total")
    assert (np.diff(totals) > 0).all()
    costs = np.array([drawn.column("cost [per block]", component=name) for name in COST_COMPONENTS])
    np.testing.assert_allclose(costs.sum(axis=0), totals)
    assert names_of_rows(drawn.axes) == [row["scheme"] for row in drawn.rows if row["component"] == "total"]
    corners = np.array([path.vertices[:4] for path in only(drawn.axes, PolyCollection).get_paths()])
    widths = (corners[:, 1, 0] - corners[:, 0, 0]).reshape(len(totals), -1)
    np.testing.assert_allclose(widths.T, costs)
    np.testing.assert_allclose(corners[:, :, 1].mean(axis=1).reshape(widths.shape), np.arange(3)[:, None] + np.zeros(4))
    (legend,) = drawn.figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [COMPONENT_NAMES[name] for name in COST_COMPONENTS]
    colours = only(drawn.axes, PolyCollection).get_facecolor()
    np.testing.assert_array_equal(colours, [patch.get_facecolor() for patch in legend.get_patches()] * len(totals))


def test_a_bar_that_would_dwarf_the_others_is_cut_and_says_so(several: xr.Dataset):
    cost = several["cost"].copy(deep=True)
    cost[{"scheme": 1}] *= 100
    drawn = draw("cost-components", several.assign(cost=cost))
    assert drawn.column("cost [per block]", scheme="mine:Policy", component="total").item() > 100
    assert drawn.axes.get_xlim()[1] < 100
    assert [text.startswith("► ") for text in drawn.texts() if "±" in text and "interval" not in text].count(True) == 1
    assert any(text.endswith("► bar cut") for text in drawn.texts())


def test_cost_over_time_is_the_running_mean_and_its_student_interval(several: xr.Dataset):
    drawn = draw("cost-over-time", several)
    assert drawn.column("block", scheme="local").tolist() == list(range(1, 80))  # a window of 80 / 40 = 2 blocks
    cost = several["cost"].sel(scheme="local").sum(COMPONENT_DIMENSION).to_numpy()
    expected = estimate((cost[:, 10] + cost[:, 11]) / 2)
    names = ("cost [per block]", "95 % low [per block]", "95 % high [per block]")
    values = [drawn.column(name, scheme="local", block=11).item() for name in names]
    assert values == pytest.approx([expected.mean, expected.low, expected.high])


def test_every_curve_is_drawn_in_its_colour_with_its_band_and_its_name_at_its_end(several: xr.Dataset):
    drawn = draw("cost-over-time", several)
    lines = dict(zip(("exact", "mine:Policy", "local"), drawn.axes.lines, strict=True))
    labels = {text.get_text(): text for text in drawn.axes.texts}
    bands = [band for band in drawn.axes.collections if not isinstance(band, LineCollection)]
    assert len(bands) == len({line.get_color() for line in lines.values()}) == 3
    ends = []
    for scheme in ("exact", "mine:Policy", "local"):
        line = lines[scheme]
        np.testing.assert_array_equal(line.get_ydata(), drawn.column("cost [per block]", scheme=scheme))
        ends.append((line.get_ydata()[-1], labels[scheme].get_position()[1]))
    assert [label for _, label in sorted(ends)] == sorted(label for _, label in ends)


def test_a_running_mean_is_that_of_each_window_whatever_is_beside_it():
    random = np.random.default_rng(0)
    values = random.uniform(1, 2, (2, 3, 57))
    values[0, 0, 20], values[1, 1, 30], values[1, 2, 40] = 1e30, np.inf, np.nan
    for window, step in ((1, 1), (7, 4), (57, 3)):
        ends, means = running_mean(values, window, step)
        assert ends[-1] == 56
        assert (np.diff(ends) == step).all()
        assert window - 1 <= ends[0] < window - 1 + step
        expected = np.stack([values[..., end + 1 - window : end + 1].mean(axis=-1) for end in ends], axis=-1)
        np.testing.assert_allclose(means, expected, rtol=1e-14)


def test_intervals_of_all_points_at_once_are_those_of_each():
    values = np.random.default_rng(0).normal(size=(4, 2, 6))
    values[1, 0, 0], values[2, 1, 3] = np.nan, np.inf
    for seeds in (4, 1):
        together = mean_and_interval(values[:seeds])
        for at in np.ndindex(2, 6):
            one = estimate(values[:seeds, *at])
            assert together[:, *at] == pytest.approx([one.mean, one.low, one.high], nan_ok=True)


def test_a_curve_has_a_bounded_number_of_points_and_ends_with_the_run(one_seed: xr.Dataset):
    blocks = draw("cost-over-time", one_seed).column("block")
    assert blocks[-1] == 4002
    assert blocks[0] >= 99
    assert 350 < len(blocks) <= 450


def test_one_seed_has_no_interval(one_seed: xr.Dataset):
    time = draw("cost-over-time", one_seed)
    assert np.isnan(time.column("95 % low [per block]")).all()
    assert not any("band" in text for text in time.texts())
    assert not any("±" in text for text in draw("cost-components", one_seed).texts())


def test_more_schemes_than_can_be_told_apart_have_no_bands():
    drawn = draw("cost-over-time", made_up(list(SCHEMES)[:11], blocks=20))
    assert len(drawn.axes.lines) == 11
    assert [type(one) for one in drawn.axes.collections] == [LineCollection]


def test_only_stable_schemes_have_a_trade_off_and_a_mean(mixed_status: xr.Dataset):
    assert {row["scheme"] for row in draw("tradeoff", mixed_status).rows} == {"exact", "qlearning"}
    components = draw("cost-components", mixed_status)
    (full,) = [row for row in components.rows if row["scheme"] == "full"]
    assert (full["status"], np.isnan(full["cost [per block]"])) == ("unstable", True)
    assert "unstable: work piles up at the devices (+1 tasks per block)" in components.texts()
    assert "not applicable: it counts whole tasks" in components.texts()


def test_an_unstable_scheme_is_drawn_dashed_and_leaves_the_axis(mixed_status: xr.Dataset):
    drawn = draw("cost-over-time", mixed_status)
    assert {row["scheme"] for row in drawn.rows} == {"exact", "qlearning", "full"}
    dashed = {line.get_color() for line in drawn.axes.lines if line.get_linestyle() == "--"}
    assert dashed == {scheme_colour("qlearning"), scheme_colour("full")}
    assert {"full, unstable ▲", "qlearning † ▲"} < set(drawn.texts())  # above an axis that follows the stable scheme
    words = " ".join(drawn.texts())
    assert "Not drawn: constant, not applicable." in words
    assert "† unstable in some seeds" in words
    assert "Dashed: unstable, at least in some seeds." in words
    assert "▲ ▼ The line leaves the axis." in words


def test_points_stand_at_weighted_waiting_and_energy(several: xr.Dataset):
    drawn = draw("tradeoff", several)
    expected = np.stack([drawn.column(f"{name} [cost per block]") for name in ("waiting", "energy")], axis=1)
    np.testing.assert_allclose(only(drawn.axes, PathCollection).get_offsets(), expected)


def test_the_cheaper_scheme_is_on_the_lower_line_of_equal_cost():
    """`local` burns 200 at the devices, which count a hundredth of the server's joules; `exact` 20 and waits for 80.

    By joules, not weighted, `local` would stand below.
    """
    dataset = made_up(["exact", "local"])
    cost = dataset["cost"].copy(deep=True)
    cost[:] = np.array([[30.0, 10.0, 50.0, 10.0], [0.0, 0.0, 50.0, 200.0]])[:, None, None, :]
    drawn = draw("tradeoff", dataset.assign(cost=cost))
    points = dict(zip(("exact", "local"), only(drawn.axes, PathCollection).get_offsets().tolist(), strict=True))
    assert points == {"exact": [80.0, 20.0], "local": [50.0, 200.0]}
    lines = equal_cost_lines(drawn)
    assert [low < 100 < high for low, high in pairwise(sorted(lines))].count(True) + (100 in lines) >= 1
    for cost_here, line in lines.items():
        np.testing.assert_allclose(line.sum(axis=1), cost_here)
    assert {f"{each:g}" for each in lines} <= set(drawn.texts())


def equal_cost_lines(drawn: Drawn) -> dict[float, np.ndarray]:
    """The lines of equal cost, (points, 2), by their cost."""
    (lines,) = [one for one in drawn.axes.collections if isinstance(one, LineCollection) and one.get_zorder() < 1]
    return {round(float(line[0].sum()), 6): np.asarray(line) for line in lines.get_segments()}


def test_a_scheme_has_a_trade_off_without_latency():
    """A continued run does not know when its first tasks arrived."""
    drawn = draw("tradeoff", made_up().assign(latency_s=np.nan * made_up()["latency_s"]))
    assert np.isfinite(drawn.column("waiting [cost per block]")).all()
    assert np.isnan(drawn.column("latency [s]")).all()


def test_without_a_stable_scheme_there_is_no_trade_off():
    drawn = draw("tradeoff", made_up({"full": ("unstable", "grows")}))
    assert drawn.rows == []
    assert "no stable scheme" in drawn.texts()


def test_without_a_bound_there_is_no_gap():
    drawn = draw("gap", made_up(bound=np.nan, bound_reason="no bound here"))
    assert drawn.rows == []
    assert "no scheme has a gap: no bound here" in drawn.texts()


def test_schemes_come_by_their_gap_the_smallest_on_top(several: xr.Dataset):
    """Made-up losses grow as costs do: the order of `made_up`, local first."""
    drawn = draw("gap", several)
    assert names_of_rows(drawn.axes) == [row["scheme"] for row in drawn.rows] == ["mine:Policy", "exact", "local"]
    mean, low, high = (drawn.column(name) for name in ("gap [%]", "95 % low [%]", "95 % high [%]"))
    assert (np.diff(mean) < 0).all()
    points = only(drawn.axes, PathCollection)
    np.testing.assert_allclose(points.get_offsets(), np.stack([mean, np.arange(3)], axis=1))
    intervals = next(one for one in drawn.axes.collections if isinstance(one, LineCollection))
    np.testing.assert_allclose(np.array(intervals.get_segments())[:, :, 0], np.stack([low, high], axis=1))
    assert BELOW_BOUND in " ".join(drawn.texts()).replace("\n", " ")


def test_causes_of_a_gap_fill_its_bar(several: xr.Dataset):
    drawn = draw("gap", several)
    ends = np.array([path.vertices[1, 0] for path in only(drawn.figure.axes[1], PolyCollection).get_paths()])
    losses = np.stack([drawn.column(f"{name} [%]") for name in ("devices", "waiting", "service")], axis=1)
    expected = 100 * np.cumsum(losses, axis=1) / losses.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(ends.reshape(3, 3), expected)


def test_an_interval_that_reaches_below_zero_is_marked(several: xr.Dataset):
    wide = several.copy(deep=True)
    for name in ("loss_devices", "loss_waiting", "loss_service"):
        wide[name][{"scheme": 0, "seed": 0}] *= 1000
    drawn = draw("gap", wide)
    assert (drawn.column("95 % low [%]") < 0).tolist() == [True, False, False]
    assert any("◂ the interval extends below zero" in text for text in drawn.texts())


def test_schemes_without_a_gap_are_named():
    drawn = draw("gap", made_up({"local": ("ok", ""), "exact": ("ok", ""), "full": ("unstable", "grows")}))
    assert [row["scheme"] for row in drawn.rows] == ["exact", "local"]
    assert any("No gap: full (the scheme is unstable)." in text for text in drawn.texts())


def test_where_the_scale_of_a_gap_changes_is_marked(several: xr.Dataset):
    drawn = draw("gap", several)
    assert [line.get_xdata()[0] for line in drawn.axes.lines] == [0.0, 1.0]
    assert {"linear ", " logarithmic"} < set(drawn.texts())


def test_one_block_of_one_seed_that_raises_the_mean_is_marked():
    """80 blocks, windows of 2, 3 seeds: a block of 1000 beside five of about 6 makes up all but 3 % of the mean."""
    calm = made_up(["exact"])
    assert not [text for text in draw("cost-over-time", calm).texts() if "deep fade" in text]
    cost = calm["cost"].copy(deep=True)
    cost[{"scheme": 0, "seed": 1, "block": 30}] = 250.0
    drawn = draw("cost-over-time", calm.assign(cost=cost))
    (mark,) = [line for line in drawn.axes.lines if line.get_marker() == "D"]
    at = mark.get_xdata().item()
    assert at in (30, 31)
    assert mark.get_ydata().item() == drawn.column("cost [per block]", block=at).item()
    assert any("◇ One block of one seed is more than a quarter" in text for text in drawn.texts())


def test_cost_of_every_seed_is_no_fade():
    """The same cost in all seeds: it is the scheme's, such as that of the first blocks."""
    dataset = made_up(["exact"])
    cost = dataset["cost"].copy(deep=True)
    cost[{"scheme": 0, "block": slice(30, 40)}] = 250.0
    drawn = draw("cost-over-time", dataset.assign(cost=cost))
    assert not [line for line in drawn.axes.lines if line.get_marker() == "D"]


def test_what_dominates_a_window_by_hand():
    """Windows of two blocks of two seeds: 4 of 1 + 4 + 1 + 2, then 4 of 4 + 2 + 2 + 0; the other seed has at most 2."""
    values = np.array([[1.0, 4.0, 2.0], [1.0, 2.0, 0.0]])
    assert np.array(largest_by_seed(values, window=2, step=1)).tolist() == [[4.0, 4.0], [2.0, 2.0], [0.5, 0.5]]
    assert np.array(largest_by_seed(values[:1], 2, 1)).tolist() == [[4.0, 4.0], [0.0, 0.0], [0.8, 4 / 6]]
    assert largest_by_seed(np.zeros((2, 3)), 2, 1)[2].tolist() == [0.0, 0.0]


def test_a_line_that_leaves_the_axis_and_returns_is_marked():
    """A block of 1e30 is beyond 1000 times the median: the axis leaves it out and says so where it is."""
    drawn = draw("cost-over-time", spiky(made_up(["exact"])))
    (mark,) = [line for line in drawn.axes.lines if line.get_marker() == "^"]
    assert mark.get_xdata().item() == 30  # the first window that the block is in
    assert mark.get_ydata().item() == drawn.axes.get_ylim()[1] < 1e6
    assert any("▲ ▼ The line leaves the axis." in text for text in drawn.texts())


@pytest.mark.parametrize("name", ["viridis", "YlOrBr", "grey"])
def test_digits_can_be_read_on_every_colour(name: str):
    """By the formula of WCAG 2: black on white has a contrast of 21, and text needs 4.5."""
    for colour in mpl.colormaps[name](np.linspace(0, 1, 101))[:, :3]:
        ratio = np.divide(*sorted((luminance(colour) + 0.05, luminance(text_colour(colour)) + 0.05), reverse=True))
        assert ratio > 4.5
    assert (text_colour("white"), text_colour("black")) == ("0", "1")


def luminance(colour: Any) -> float:
    """Of an sRGB colour, 0 to 1."""
    channels = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in mpl.colors.to_rgb(colour)]
    return 0.2126 * channels[0] + 0.7152 * channels[1] + 0.0722 * channels[2]


def test_axes_are_named_as_the_dataset_names_its_variables():
    dataset = made_up(["exact"], traced=(0,))
    dataset["cost"].attrs |= {"long_name": "price, in another word", "units": "EUR"}
    dataset["device_gain"].attrs |= {"long_name": "loss, of the channel", "units": "dB"}
    assert draw("cost-over-time", dataset).axes.get_ylabel() == "price [EUR]"
    assert draw("cost-components", dataset).axes.get_xlabel() == "price [EUR]"
    drawn = draw("devices", dataset, "run")
    assert [axes.get_ylabel() for axes in drawn.figure.axes][3] == "loss [dB]"
    assert "loss [dB]" in drawn.rows[0]


def invalid(dataset: xr.Dataset) -> xr.Dataset:
    """The first scheme's numbers become infinite, then undefined, half-way in its only seed."""
    cost = dataset["cost"].copy(deep=True)
    cost[{"scheme": 0, "block": slice(40, 60)}], cost[{"scheme": 0, "block": slice(60, None)}] = np.inf, np.nan
    status, reason = (dataset[name].astype(object) for name in ("status", "reason"))
    status[0], reason[0] = "invalid", "a cost became infinite or undefined"
    return dataset.assign(cost=cost, status=status, reason=reason)


def spiky(dataset: xr.Dataset) -> xr.Dataset:
    """One block of a heavy tail, and a component that is always zero."""
    cost = dataset["cost"].copy(deep=True)
    cost[{"scheme": 0, "block": 30}], cost[{COMPONENT_DIMENSION: 0}] = 1e30, 0.0
    return dataset.assign(cost=cost)


def alike(dataset: xr.Dataset) -> xr.Dataset:
    """Every number is 1."""
    return describe(xr.ones_like(dataset).assign(status=dataset["status"])).assign_attrs(dataset.attrs)


AWKWARD: dict[str, Callable[[], xr.Dataset]] = {
    "one seed, two blocks, one scheme": lambda: made_up(["exact"], seeds=1, blocks=2),
    "no warm-up, a name that looks like mathematics": lambda: made_up(
        warmup=0, scenario_name=r"$\frac{$_^", server="exact"
    ),
    "many schemes, one with a long name": lambda: made_up(
        [*SCHEMES, *(f"module{i}:Policy" for i in range(4)), "a_package.with.a_long.name:AndAPolicyWithALongName"],
        blocks=20,
    ),
    "all unstable": lambda: made_up({"exact": ("unstable", "unstable: work piles up"), "full": ("unstable", "")}),
    "none applicable": lambda: made_up({"constant": ("not_applicable", "it counts whole tasks")}),
    "every status": lambda: made_up(MIXED_STATUS),
    "invalid": lambda: invalid(made_up(["exact", "local"], seeds=1)),
    "spikes": lambda: spiky(made_up(["exact"])),
    "all alike": lambda: alike(made_up()),
    "nothing costs anything": lambda: made_up().assign(cost=made_up()["cost"].copy(data=0 * made_up()["cost"])),
    "discounted costs": lambda: made_up(objective="discounted"),
}


@pytest.mark.parametrize("case", AWKWARD)
def test_awkward_comparisons_are_readable(case: str):
    dataset = AWKWARD[case]()
    summaries = summarise(dataset, reference=None)
    for name in FIGURES["comparison"]:
        drawn = draw(name, dataset, summaries=summaries)
        check_readable(drawn.figure)
        if name in ("cost-over-time", "tradeoff"):
            check_labels_apart(drawn.figure)


def check_labels_apart(figure: Figure) -> None:
    """No label beside a panel covers another, and each line to a point starts inside the panel."""
    lines = [one for one in figure.findobj(LineCollection) if one.get_zorder() > 1]  # lines of equal cost are behind
    starts = [segment[0] for one in lines for segment in one.get_segments()]
    assert np.all((np.array(starts) > -1e-9) & (np.array(starts) < 1 + 1e-9))
    renderer, (axes,) = FigureCanvasAgg(figure).get_renderer(), figure.axes
    beside = [text for text in axes.texts if text.get_transform() == axes.transAxes and text.get_position()[0] > 1]
    boxes = [text.get_window_extent(renderer) for text in beside]
    for below, above in pairwise(boxes):
        assert below.y1 <= above.y0 + 0.12 * below.height  # a line's height has some space above the letters


def test_a_run_shows_the_components_of_its_cost():
    drawn = draw("cost-over-time", made_up(["exact"], blocks=140), "run")
    costs = np.array([drawn.column("cost [per block]", component=name) for name in COST_COMPONENTS])
    np.testing.assert_allclose(costs.sum(axis=0), drawn.column("cost [per block]", component="total"))
    assert {*COMPONENT_NAMES.values(), "total"} < set(drawn.texts())
    check_readable(drawn.figure)


def test_traced_devices_are_those_of_the_first_seed_in_the_last_blocks():
    dataset = made_up(["exact"], blocks=140, traced=(0, 7))
    drawn = draw("devices", dataset, "run")
    assert drawn.column("block", device=7).tolist() == list(range(40, 140))
    own = dataset.isel(scheme=0, seed=0, block=slice(40, None)).sel(traced=7)
    columns = {"q": "queue length [tasks]", "offload": "offloaded fraction", "cpu_hz": "CPU rate [Hz]"}
    columns |= {"power": "transmit power [W]", "cpu_energy_j": "CPU energy [J]", "radio_energy_j": "radio energy [J]"}
    for name, column in columns.items():
        np.testing.assert_allclose(drawn.column(column, device=7), own[f"device_{name}"])
    assert "scheme exact, seed 0, last 100 blocks" in drawn.texts()
    gain, power = drawn.figure.axes[7], drawn.figure.axes[9]  # the right column of two
    np.testing.assert_array_equal(gain.lines[0].get_ydata(), own["device_gain"])
    np.testing.assert_array_equal(power.lines[0].get_ydata(), own["device_power"])
    assert [axes.get_title(loc="left") for axes in drawn.figure.axes[:2]] == ["device 0", "device 7"]


def silent(dataset: xr.Dataset) -> xr.Dataset:
    """A scheme that transmits nothing."""
    series = {name: dataset[f"device_{name}"] for name in ("power", "offload", "radio_energy_j")}
    return dataset.assign({f"device_{name}": values.copy(data=0 * values) for name, values in series.items()})


def broken(dataset: xr.Dataset) -> xr.Dataset:
    """Queues and powers that became infinite and undefined."""
    infinite = dataset["device_q"].where(dataset["device_q"] < 2, np.inf)
    undefined = infinite.copy(data=np.nan * infinite)
    return invalid(dataset).assign(device_q=infinite, device_started=undefined, device_power=infinite)


AWKWARD_RUNS: dict[str, Callable[[], xr.Dataset]] = {
    "two blocks": lambda: made_up(["exact"], seeds=1, blocks=2, traced=[3]),
    "unstable": lambda: made_up({"full": ("unstable", "unstable: work piles up")}, traced=[3]),
    "nothing sent": lambda: silent(made_up(["local"], traced=[0, 1])),
    "invalid": lambda: broken(made_up(["exact"], seeds=1, traced=[0])),
    "every device": lambda: made_up(["exact"], blocks=20, traced=range(20)),
    "a long name": lambda: made_up([f"a.{'long_' * 20}name:Policy"], blocks=20, traced=[0], scenario_name="long-" * 30),
}


@pytest.mark.parametrize("case", AWKWARD_RUNS)
def test_awkward_runs_are_readable(case: str):
    dataset = AWKWARD_RUNS[case]()
    for name in FIGURES["run"]:
        drawn = draw(name, dataset, "run")
        check_readable(drawn.figure)
        assert drawn.rows
    if case == "nothing sent":
        assert "nothing is transmitted" in drawn.texts()


def test_a_run_is_written_with_the_devices_that_were_traced(tmp_path: Path):
    write_run(made_up(["exact"], blocks=20, traced=[3]), tmp_path)
    check_files(tmp_path, FIGURES["run"])


def test_a_run_that_could_not_be_played_has_no_devices(tmp_path: Path):
    write_run(made_up({"constant": ("not_applicable", "it counts whole tasks")}), tmp_path)
    check_files(tmp_path, ["cost-over-time"])
    assert table(tmp_path, "cost-over-time") == []


def test_figures_are_the_same_whatever_matplotlib_is_set_to(several: xr.Dataset, tmp_path: Path):
    write_comparison(several, tmp_path / "usual")
    check_files(tmp_path / "usual", FIGURES["comparison"])
    with mpl.rc_context({"font.size": 30, "axes.grid": False, "axes.facecolor": "black"}):
        write_comparison(several, tmp_path / "other")
        assert mpl.rcParams["font.size"] == 30
    for path in (tmp_path / "usual").iterdir():
        assert path.read_bytes() == (tmp_path / "other" / path.name).read_bytes(), path.name


def test_a_csv_file_holds_the_rows_and_a_blank_where_there_is_no_number(mixed_status: xr.Dataset, tmp_path: Path):
    write_comparison(mixed_status, tmp_path)
    rows = draw("cost-components", mixed_status).rows
    expected = [{name: "" if value != value else str(value) for name, value in row.items()} for row in rows]
    assert table(tmp_path, "cost-components") == expected
    assert "" in {row["95 % low [per block]"] for row in expected}


def test_the_colours_of_shipped_schemes_differ():
    assert {*SCHEME_COLOURS} <= {*SCHEMES}
    colours = [*SCHEME_COLOURS.values(), *OTHER_COLOURS]
    assert len({*colours}) == len(colours)


def test_a_scheme_keeps_its_colour_when_others_are_added():
    """A row in front of all others recolours none, and has itself a colour, as a scheme from outside has."""
    rows = {**SCHEMES}
    before = {name: scheme_colour(name) for name in rows}
    SCHEMES.clear()
    SCHEMES.update({"new": rows["local"], **rows})
    try:
        after = {name: scheme_colour(name) for name in SCHEMES}
    finally:
        SCHEMES.clear()
        SCHEMES.update(rows)
    assert after.pop("new") in OTHER_COLOURS
    assert after == before
    assert scheme_colour("mine:Policy") in OTHER_COLOURS


# Figures for a paper


PAPER_CASES: dict[str, tuple[Kind, Callable[[], xr.Dataset]]] = {
    "common schemes": ("comparison", lambda: made_up([*PAPER_ORDER[:6], "mine:Policy"])),
    "every status": ("comparison", AWKWARD["every status"]),
    "many schemes, one with a long name": ("comparison", AWKWARD["many schemes, one with a long name"]),
    "spikes": ("comparison", AWKWARD["spikes"]),
    "one device": ("run", lambda: made_up(["exact"], blocks=140, traced=[3])),
    "every device": ("run", AWKWARD_RUNS["every device"]),
}


@pytest.mark.parametrize("case", PAPER_CASES)
def test_a_figure_for_a_paper_has_the_width_of_its_columns_no_title_and_text_that_can_be_read(case: str):
    kind, make = PAPER_CASES[case]
    dataset = make()
    for name in FIGURES[kind]:
        figure = draw(name, dataset, kind, style="paper").figure
        assert figure.texts == []
        assert figure.get_figwidth() * 72.27 == pytest.approx(
            516 if (name, case) == ("devices", "every device") else 252
        )
        assert min(text.get_fontsize() for text in visible_texts(figure)) >= 7
        check_readable(figure)


def test_a_paper_gets_vector_files_with_truetype_fonts_and_the_same_bytes_each_time(
    several: xr.Dataset, tmp_path: Path
):
    names = FIGURES["comparison"]
    for folder, look in (("a", Look("paper")), ("b", Look("paper")), ("screen", None)):
        write_comparison(several, tmp_path / folder, look=look)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name
        if path.suffix in (".png", ".svg", ".csv"):
            assert path.read_bytes() == (tmp_path / "screen" / path.name).read_bytes(), path.name
    pdf = {path.stem: path.read_bytes() for path in (tmp_path / "a").glob("*.pdf")}
    assert set(pdf) == set(names)
    for data in pdf.values():
        assert b"/MediaBox [ 0 0 251.05" in data  # points of 1/72 inch; a column has 252 of 1/72.27 inch
        assert b"/Subtype /CIDFontType2" in data
        assert b"/FontFile2" in data  # the font itself
        for word in (b"/Type3", b"/Subtype /Image", b"CreationDate"):
            assert word not in data
    check_files(tmp_path / "screen", names)


def test_results_are_drawn_again_from_their_folder(several: xr.Dataset, tmp_path: Path):
    """The same files as when they were written, from the command and from Python."""
    labels = {"local": r"$\kappa$, ours"}
    save_dataset(several, tmp_path)
    write_comparison(several, tmp_path / "first", look=Look("paper", labels))
    words = ("--style", "paper", "--label", *(f"{name}={label}" for name, label in labels.items()))
    with contextlib.redirect_stderr(io.StringIO()) as said:
        assert main(["draw", str(tmp_path), "--out", str(tmp_path / "command"), *words]) == 0
    assert said.getvalue().startswith("Results are in ")
    partway.draw(xr.load_dataset(tmp_path / "results.nc"), tmp_path / "python", style="paper", labels=labels)
    for path in (tmp_path / "first").iterdir():
        for folder in ("command", "python"):
            assert path.read_bytes() == (tmp_path / folder / path.name).read_bytes(), (folder, path.name)
    with pytest.raises(InputError, match=r"label of 'locl': no figure has this name; did you mean 'local'"):
        partway.draw(several, tmp_path / "wrong", labels={"locl": "Ours"})
    assert not (tmp_path / "wrong").exists()


def test_captions_say_what_titles_and_notes_say_on_the_screen(several: xr.Dataset, tmp_path: Path):
    write_comparison(several.assign_attrs(scenario_name="a_b & 5 %"), tmp_path, look=Look("paper", {"local": "$a_i$"}))
    captions = (tmp_path / "captions.tex").read_text("utf-8")
    assert captions.count(r"\begin{figure}") == captions.count(r"\end{figure}") == len(FIGURES["comparison"])
    for name in FIGURES["comparison"]:
        assert rf"\includegraphics{{{name}.pdf}}" in captions
        assert rf"\label{{fig:{name}}}" in captions
    assert captions.count(r"a\_b \& 5 \%: 20 devices, 80 blocks, 3 seeds. ") == 4
    assert "Cost over time: running mean over 2 blocks, with its 95 \\% confidence band over seeds." in captions


def test_mathematics_of_a_label_stays_mathematics_in_a_caption():
    dataset = made_up({"exact": ("ok", ""), "full": ("unstable", "grows")})
    drawn = draw("gap", dataset, style="paper", labels={"full": r"$\lambda_1$"})
    assert r"No gap: $\lambda_1$ (the scheme is unstable)." in getattr(drawn.figure, "caption")  # noqa: B009
    with figure_style("paper", {"full": "50 % of $a_b$ & c_d, $e$"}):
        assert outside_mathematics("x_y: 50 % of $a_b$ & c_d, $e$; $5", latex) == (
            r"x\_y: 50 \% of $a_b$ \& c\_d, $e$; \$5"
        )
        assert as_text("$5: 50 % of $a_b$ & c_d, $e$") == r"\$5: 50 % of $a_b$ & c_d, $e$"
    assert latex("±1_a{b}~<x> \\ †▲") == (
        r"$\pm$1\_a\{b\}\textasciitilde{}\textless{}x\textgreater{} \textbackslash{} \textdagger{}$\triangle$"
    )


@pytest.mark.parametrize("style", ["screen", "paper"])
def test_labels_stand_for_names_in_figures_but_not_in_data(several: xr.Dataset, style: StyleName):
    labels = {"local": r"Ours ($\lambda$)", "exact": "US$ 5"}
    for name in FIGURES["comparison"]:
        drawn = draw(name, several, style=style, labels=labels)
        texts = " ".join(drawn.texts())
        assert r"Ours ($\lambda$)" in texts
        assert r"US\$ 5" in texts
        assert "local" not in texts.replace("mine:Policy", "")
        assert {row["scheme"] for row in drawn.rows} == {"local", "exact", "mine:Policy"}


@pytest.mark.parametrize("label", ["", "  ", "two\nlines", r"$\nosuchthing$", "$x^$"])
def test_a_label_that_cannot_be_drawn_is_refused_before_anything_is(label: str):
    with pytest.raises(InputError, match="label of 'local'"):
        Look(labels={"local": label})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"style": ["paper"]}, "style must be one of screen, paper, got an array"),
        ({"style": "papr"}, "style must be one of screen, paper, got 'papr'"),
        ({"labels": "local"}, "labels must be a mapping of names to texts, got 'local'"),
        ({"labels": {"local": 1}}, "label of 'local': must be text of one line, got 1"),
        ({"labels": {1: "one"}}, "label of 1: no figure has this name"),
        ({"dataset": 1}, "draw takes a dataset of partway.compare or sweep, got int"),
        ({"folder": None}, "folder must be a path"),
    ],
)
def test_draw_refuses_arguments_of_wrong_types(
    several: xr.Dataset, tmp_path: Path, wrong: dict[str, Any], message: str
):
    draw_anything: Any = partway.draw
    with pytest.raises(InputError, match=message):
        draw_anything(**{"dataset": several, "folder": tmp_path / "wrong", **wrong})
    assert not (tmp_path / "wrong").exists()


def test_schemes_differ_in_print():
    """By colour and marker, and without colour by marker and line; the six most common by any of colour and marker."""
    assert {*PAPER_ORDER} == {*SCHEME_COLOURS}  # a scheme in neither is drawn in a colour that is left
    others = [f"mine:Policy{i}" for i in range(len(PAPER_OTHER_COLOURS))]
    with figure_style("paper", schemes=["local", *others]):
        looks = [(scheme_colour(name), scheme_marker(name), scheme_dashes(name)) for name in (*PAPER_ORDER, *others)]
    for one in (slice(0, 2), slice(1, 3)):
        assert len({look[one] for look in looks}) == len(looks)
    for part in (0, 1):
        assert len({look[part] for look in looks[:6]}) == 6
    with figure_style(schemes=others):
        assert len({scheme_colour(name) for name in others}) == len(others)


MACHADO = {
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.01182, 0.04294, 0.968881)),
    "tritanopia": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.3039)),
    "none": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
}
"""What linear RGB looks like to people with a colour vision deficiency: Machado, Oliveira and Fernandes (2009)."""


@pytest.mark.parametrize("vision", MACHADO)
def test_colours_for_print_differ_for_any_colour_vision(vision: str):
    """By more than 11 in CIE Lab, where 2.3 is just noticeable."""
    colours = (*PAPER_COLOURS, PAPER_OTHER_COLOURS[0])
    seen = [lab(np.clip(np.array(MACHADO[vision]) @ linear_rgb(colour), 0, 1)) for colour in colours]
    assert min(np.linalg.norm(a - b) for a, b in combinations(seen, 2)) > 11


def linear_rgb(colour: Any) -> np.ndarray:
    channels = np.array(mpl.colors.to_rgb(colour))
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def lab(linear: np.ndarray) -> np.ndarray:
    """CIE Lab of linear sRGB, white point D65."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(np.maximum(to_xyz @ linear / (0.9505, 1.0, 1.089), 0.009))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_segments_of_bars_differ_in_grey():
    """By lightness; white paper has 100, and the darkest that is distinguishable from black about 10."""
    for colours in (COMPONENT_COLOURS.values(), [colour for _, colour in LOSSES.values()]):
        lightness = sorted(lab(linear_rgb(colour))[0] for colour in colours)
        assert min(np.diff(lightness)) > 12
