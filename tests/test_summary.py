"""What is said of a comparison: intervals, stability, discounted sums, pairing by seed, and the JSON for programs."""

import json
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from partway.bound import lower_bound as bounds
from partway.controllers.base import ControllerPair
from partway.controllers.baselines import Local, Steady
from partway.errors import InputError
from partway.experiments.comparison import compare
from partway.experiments.report import as_json
from partway.experiments.statistics import BATCHES, count_unstable, estimate, settling_block
from partway.experiments.status import status_of
from partway.experiments.summary import Summary, cost_of, relative_cost, summarise
from partway.formatting import plain
from partway.measurement.gap import COST_COMPONENTS, discounted
from partway.measurement.latency import DELAYS
from partway.measurement.metrics import BlockMetrics
from partway.simulation import schedule

Compared = Callable[..., xr.Dataset]


# Means and intervals


def test_an_estimate_by_hand():
    """1, 2, 3, 4: mean 2.5, standard deviation sqrt(5 / 3), t_0.975 of 3 degrees 3.182446: half width 2.054260."""
    found = estimate(np.array([1.0, 2.0, 3.0, 4.0]))
    assert (found.mean, found.low, found.high) == pytest.approx((2.5, 2.5 - 2.054260, 2.5 + 2.054260), abs=1e-6)


def test_an_estimate_against_scipy():
    values = np.random.default_rng(0).normal(3.0, 2.0, 8)
    found, interval = estimate(values), stats.t.interval(0.95, 7, values.mean(), stats.sem(values))
    assert (found.low, found.high) == pytest.approx(interval, rel=1e-12)


def test_one_seed_has_no_interval():
    found = estimate(np.array([7.0]))
    assert found.mean == 7.0
    assert np.isnan([found.low, found.high]).all()


def test_discounted_sums_by_hand():
    """1 + 2 / 2 + 4 / 4 and 8 + 0 + 8 / 4."""
    assert discounted(np.array([[1.0, 2.0, 4.0], [8.0, 0.0, 8.0]]), 0.5).tolist() == [3.0, 10.0]


def test_the_settling_block_by_hand():
    """10, then always 1: the running mean is 1 + 9 / (t + 1). At the end of 200 blocks it is 1.045, within 5 % of that

    from 9 / (t + 1) <= 0.09725 on, t = 92. In 100 blocks it would be t = 62, beyond half of them: not settled. It is
    the mean over seeds that has to settle, not each seed.
    """
    assert settling_block(np.array([[10.0] + [1.0] * 199])) == 92
    assert settling_block(np.array([[10.0] + [1.0] * 99])) is None
    assert settling_block(np.full((3, 50), 2.0)) == 0
    assert settling_block(np.array([[0.0] + [1.0] * 199, [20.0] + [1.0] * 199])) == 92


# Stability


def autocorrelated(seeds: int, blocks: int, memory: float, number: int) -> np.ndarray:
    """Stationary noise with a mean of 50 and a deviation of 5, (seeds, blocks)."""
    rng = np.random.default_rng(number)
    x, shocks = np.empty((seeds, blocks)), rng.normal(0.0, 5.0 * np.sqrt(1 - memory**2), (seeds, blocks))
    x[:, 0] = rng.normal(0.0, 5.0, seeds)
    for t in range(1, blocks):
        x[:, t] = memory * x[:, t - 1] + shocks[:, t]
    return 50.0 + x


RAMP = np.arange(2000.0)
PAIR = ControllerPair(Local(), Steady())


class Theirs(Steady):
    """A server from outside."""


@pytest.mark.parametrize(
    ("series", "seeds"),
    [
        pytest.param(np.full((4, 2000), 7.0), 0, id="nothing happens"),
        pytest.param(autocorrelated(4, 2000, 0.9, 1), 0, id="noise with a memory"),
        pytest.param(
            50.0 * np.minimum(RAMP / 900, 1.0) + autocorrelated(4, 2000, 0.0, 2), 0, id="filling up, then full"
        ),
        pytest.param(np.tile(0.05 * RAMP, (4, 1)), 0, id="half a per cent of 10 tasks stays"),
        pytest.param(np.tile(0.2 * RAMP, (4, 1)), 4, id="two per cent of 10 tasks stay"),
        pytest.param(0.5 * RAMP + autocorrelated(4, 2000, 0.9, 3), 4, id="growth under noise"),
        pytest.param(0.5 * RAMP * np.array([[1.0], [0.0], [0.0], [0.0]]), 1, id="one seed of four"),
        pytest.param(0.5 * RAMP * np.array([[1.0], [1.0], [1.0], [0.0]]), 3, id="three seeds of four"),
        pytest.param(-0.5 * RAMP + np.zeros((4, 1)), 0, id="emptying"),
    ],
)
def test_growth_is_distinguished_from_noise(series: np.ndarray, seeds: int):
    """10 tasks arrive per block; a seed counts where with 99 % confidence more than 0.1 of them stay."""
    assert count_unstable(series, 10.0)[0] == seeds


def test_growth_is_the_mean_slope_of_the_last_half():
    series = np.concatenate([np.zeros(1000), 0.5 * np.arange(1000.0)])
    seeds, growth = count_unstable(np.stack([series, 3 * series]), 10.0)
    assert seeds == 2
    assert growth == pytest.approx((0.5 + 1.5) / 2, rel=1e-9)


def test_work_that_does_not_move_does_not_grow():
    """However much waits, where nothing arrives; a seed of NaN does not affect the others."""
    left = np.random.default_rng(7).uniform(0.0, 1e3, (100, 1))
    assert count_unstable(np.tile(left, (1, 2000)), 0.0) == (0, 0.0)
    lost = np.vstack([np.full((1, 2000), np.nan), np.tile(np.arange(2000.0), (2, 1))])
    assert count_unstable(lost, 10.0)[0] == 2


def test_growth_is_that_of_linear_regression():
    """SciPy's, on ten means of the last half: how many seeds are above 1 % of what arrives, the mean slope."""
    work = autocorrelated(200, 2000, 0.9, 8) + np.linspace(0.0, 20.0, 2000) * np.linspace(0.0, 2.0, 200)[:, None]
    means = work[:, 1000:].reshape(200, BATCHES, -1).mean(axis=2)
    fits = [stats.linregress(np.arange(BATCHES) * 1000 / BATCHES, each) for each in means]
    surely = [fit.slope - stats.t.ppf(0.99, BATCHES - 2) * fit.stderr > 0.004 for fit in fits]
    assert 20 < sum(surely) < 180
    assert count_unstable(work, 0.4) == (sum(surely), pytest.approx(np.mean([fit.slope for fit in fits]), rel=1e-9))


def test_stationary_noise_is_rarely_called_growth():
    """Of 400 series with a memory of 20 blocks and no drift 1 % would be, if the means of batches were independent."""
    assert count_unstable(autocorrelated(400, 2000, 0.95, 4), 0.0)[0] <= 16


@pytest.mark.parametrize("blocks", [2, 3, 4, 6])
def test_a_few_blocks_say_nothing_of_growth(blocks: int):
    assert count_unstable(np.tile(np.arange(float(blocks)), (3, 1)), 1.0)[0] == (3 if blocks == 6 else 0)


@pytest.mark.parametrize(("growing_seeds", "status"), [(0, "ok"), (2, "ok"), (3, "unstable"), (4, "unstable")])
def test_a_scheme_is_unstable_when_most_seeds_are(growing_seeds: int, status: str):
    """Of four; a minority is mentioned."""
    flat = np.ones((4, 2000))
    work = np.where(np.arange(4)[:, None] < growing_seeds, 0.5 * RAMP, 7.0)
    metrics = BlockMetrics(**dict.fromkeys((field.name for field in fields(BlockMetrics)), flat))
    found, reason, growth = status_of(replace(metrics, total_work=work, waiting=work), PAIR)
    assert found == status
    assert growth == pytest.approx(0.5 * growing_seeds / 4)
    assert (reason is None) == (growing_seeds == 0)
    assert ("at the devices" in (reason or "")) == (status == "unstable")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_scheme_with_a_cost_that_is_no_number_is_invalid(bad: float):
    flat = np.ones((2, 100))
    metrics = BlockMetrics(**dict.fromkeys((field.name for field in fields(BlockMetrics)), flat))
    spoilt = flat.copy()
    spoilt[1, 3] = bad
    status, reason, _ = status_of(replace(metrics, device_energy=spoilt), PAIR)
    assert status == "invalid"
    assert reason == "a cost became infinite or undefined in block 3"
    _, theirs, _ = status_of(replace(metrics, device_energy=spoilt), ControllerPair(PAIR.device, Theirs()))
    assert theirs == f"{reason}; look for 0/0, log and sqrt in Theirs.act"


# Comparisons


def labelled(costs: dict[str, np.ndarray], warmup: int) -> xr.Dataset:
    """A dataset of nothing but costs, all in one component."""
    cost = np.stack(list(costs.values()))[..., None] * np.array([1.0, 0.0, 0.0, 0.0])
    return xr.Dataset(
        {"cost": (("scheme", "seed", "block", "component"), cost)},
        coords={"scheme": list(costs), "component": list(COST_COMPONENTS)},
        attrs={"warmup": warmup},
    )


def test_relative_cost_is_paired_by_seed_and_after_warm_up():
    """Seeds differ tenfold, a tenth more in each of them: +10 % exactly, where unpaired the interval would be vast."""
    theirs = np.outer([1.0, 5.0, 10.0], np.ones(20))
    ours = 1.1 * theirs
    ours[:, :5] = 1e6
    found = relative_cost(labelled({"ours": ours, "theirs": theirs}, warmup=5), "ours", "theirs")
    assert (found.mean, found.low, found.high) == pytest.approx((10.0, 10.0, 10.0), rel=1e-9)
    assert relative_cost(labelled({"ours": ours, "theirs": theirs}, warmup=0), "ours", "theirs").mean > 1e6


def test_relative_cost_by_hand():
    """Two seeds, 8 and 12 against 10 and 10: -20 and +20 %; t_0.975 of 1 degree is 12.7062, times 28.284 / sqrt(2)."""
    found = relative_cost(labelled({"a": np.array([[8.0], [12.0]]), "b": np.full((2, 1), 10.0)}, warmup=0), "a", "b")
    assert found.mean == pytest.approx(0.0, abs=1e-12)
    assert found.high == pytest.approx(12.7062 * 20.0, rel=1e-5)


@pytest.fixture(scope="module")
def compared() -> Iterator[Compared]:
    """`compare` for four of the paper's devices and the server that compiles fastest, all in the same calls."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schedule, "BLOCKS_PER_CALL", 50)
        patch.setattr(bounds, "MAX_STATES", bounds.STATES)  # an overloaded device has no use for a longer table
        known: dict[str, xr.Dataset] = {}

        def made(schemes: list[str], **overrides: Any) -> xr.Dataset:
            key = repr((schemes, overrides))
            if key not in known:
                given = {"devices": 4, **overrides}
                known[key] = compare("paper", overrides=given, schemes=schemes, server="constant", blocks=100, seeds=2)
            return known[key]

        yield made


@pytest.fixture(scope="module")
def dataset(compared: Compared) -> xr.Dataset:
    return compared(["random", "constant"])


@pytest.fixture(scope="module")
def summaries(dataset: xr.Dataset) -> dict[str, Summary]:
    return {summary.name: summary for summary in summarise(dataset)}


@pytest.mark.parametrize("name", ["random", "constant"])
def test_a_summary_says_what_the_series_hold(name: str, dataset: xr.Dataset, summaries: dict[str, Summary]):
    """Every number again with NumPy from the dataset: 2 seeds, 100 blocks of which 50 are warm-up, gamma = 0.95."""
    own, summary = dataset.sel(scheme=name), summaries[name]
    late = {
        key: own[key].values[:, 50:].astype(float)
        for key in ("arrived", "sent", "started_work", "device_energy_j", "server_utilisation")
    }
    cost = own["cost"].values.astype(float)
    per_block, tasks = cost.sum(axis=-1), late["arrived"].sum()
    assert summary.status == "ok"
    assert summary.cost.mean == pytest.approx(per_block[:, 50:].mean(), rel=1e-6)
    assert summary.cost_full.mean == pytest.approx(per_block.mean(), rel=1e-6)
    assert summary.cost_median == pytest.approx(np.median(per_block[:, 50:].mean(axis=1)), rel=1e-6)
    assert summary.cost.high - summary.cost.mean == pytest.approx(
        12.7062 * abs(np.diff(per_block[:, 50:].mean(axis=1))[0]) / 2, rel=1e-4
    )
    assert sum(summary.cost_components.values()) == pytest.approx(summary.cost.mean, rel=1e-6)
    assert summary.cost_components["device_energy"] == pytest.approx(cost[:, 50:, 3].mean(), rel=1e-6)
    weights = 0.95 ** np.arange(100)
    assert summary.discounted_from_start.mean == pytest.approx((per_block * weights).sum(axis=1).mean(), rel=1e-6)
    assert summary.discounted_after_warmup.mean == pytest.approx(
        (per_block[:, 50:] * weights[:50]).sum(axis=1).mean(), rel=1e-6
    )
    assert summary.device_j == pytest.approx(late["device_energy_j"].sum() / tasks, rel=1e-6)
    assert summary.offloaded == pytest.approx(late["sent"].sum() / late["started_work"].sum(), rel=1e-6)
    assert summary.server_utilisation == pytest.approx(late["server_utilisation"].mean(), rel=1e-6)
    never = np.nan_to_num([summary.latency_s[share] for share in ("p50", "p95", "p99")], nan=np.inf)
    assert 0.1 < never[0] <= never[1] <= never[2]
    assert summary.growth_per_block is None


def test_the_reference_is_compared_with_the_others_and_not_with_itself(summaries: dict[str, Summary]):
    assert summaries["constant"].relative_cost is None
    other = summaries["random"]
    assert other.relative_cost is not None
    assert other.relative_cost.mean == pytest.approx(
        100 * (other.cost.mean / summaries["constant"].cost.mean - 1), rel=0.2
    )
    assert other.relative_cost.mean > 0


def test_a_reference_that_is_not_there_is_refused(dataset: xr.Dataset):
    """But for the default, which need not have run."""
    with pytest.raises(InputError, match=r"summarise: no scheme 'randon' in this dataset; did you mean 'random'\?"):
        summarise(dataset, "randon")
    assert summarise(dataset.sel(scheme=["random"]))[0].relative_cost is None


def test_what_ignores_the_channel_without_a_limit_on_power_has_a_heavy_tail(compared: Compared):
    assert [one.heavy_tail for one in summarise(compared(["random", "local"]))] == [True, False]
    assert not summarise(compared(["random"], **{"device.tx_power_max_w": 0.2}))[0].heavy_tail


ESTIMATE = {"mean": float, "ci95": [float, float]}
SCHEMA = {
    "schema_version": int,
    "scenario": dict,
    "seeds": list,
    "placement": {"distance_m": list, "mean_gain_per_w": list},
    "lower_bound": {"average": float, "discounted": float, "price": float, "assumes": list, "reason": str},
    "schemes": list,
}
SCHEME = {
    "name": str,
    "status": str,
    "reason": str,
    "cost_per_block": ESTIMATE,
    "discounted_cost": {"from_start": ESTIMATE, "after_warmup": ESTIMATE},
    "gap": {"mean": float, "ci95": [float, float], "devices": float, "waiting": float, "service": float, "reason": str},
    "cost_components": dict.fromkeys(COST_COMPONENTS, float),
    "latency_s": dict.fromkeys(("mean", "p50", "p95", "p99"), float) | {"delays": dict.fromkeys(DELAYS, float)},
    "throughput_per_s": ESTIMATE,
    "energy_j_per_task": {"device": float, "server": float},
    "offloaded_share": float,
    "signalling": {"up": int, "down": int},
    "growth_per_block": float,
}
"""Keys that a program may rely on, and the type of what is there when it is not null."""


def misfits(value: Any, schema: Any, where: str) -> list[str]:
    """Where a JSON value is neither null nor what the schema says."""
    if value is None:
        return []
    if isinstance(schema, dict):
        missing = [f"{where}.{key}" for key in schema if key not in value]
        return missing + [
            bad for key in schema if key in value for bad in misfits(value[key], schema[key], f"{where}.{key}")
        ]
    if isinstance(schema, list):
        wrong = not isinstance(value, list) or len(value) != len(schema)
        return (
            [where]
            if wrong
            else [bad for one, kind in zip(value, schema, strict=True) for bad in misfits(one, kind, where)]
        )
    kinds = (int, float) if schema is float else schema
    return [] if isinstance(value, kinds) and not isinstance(value, bool) else [where]


WORLDS: dict[str, tuple[list[str], dict[str, Any]]] = {
    "ok": (["random", "constant"], {}),
    "unstable": (["local"], {"device.arrival_prob": 1.0, "device.cpu_max_hz": 20e9}),
    "not_applicable": (["full"], {"queue": "as_printed"}),
    "invalid": (["random"], {"radio.noise_dbw": 300.0, "radio.pathloss_db_at_1m": 300.0}),
}
"""Schemes and a world for every status: at unstable 5 tasks arrive and 1 is run; at invalid gains are below 1e-38."""


@pytest.mark.parametrize("status", WORLDS)
def test_json_is_json_and_follows_the_schema(status: str, compared: Compared):
    schemes, overrides = WORLDS[status]
    dataset = compared(schemes, **overrides)
    document = as_json(dataset)
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert misfits(document, SCHEMA, "") == []
    assert document["schema_version"] == 2
    assert document["seeds"] == [0, 1]
    assert len(document["placement"]["distance_m"]) == 4
    assert document["scenario"]["devices"] == 4
    for one in document["schemes"]:
        assert misfits(one, SCHEME, one["name"]) == []
        assert set(SCHEME) <= set(one)
        assert one["status"] == status
        assert status == "ok" or one["reason"]
        assert (one["cost_per_block"]["mean"] is None) == (status != "ok")
        assert (one["growth_per_block"] is None) == (status != "unstable")
        assert (one["gap"]["mean"] is None) == bool(one["gap"]["reason"])
        own = dataset.sel(scheme=one["name"])
        assert own["gap_reason"].item() == (one["gap"]["reason"] or "")
        assert np.isfinite(own["loss_devices"]).all() == (one["gap"]["mean"] is not None)
        if one["latency_s"]["mean"] is not None:
            assert sum(one["latency_s"]["delays"].values()) == pytest.approx(one["latency_s"]["mean"])
    bound = document["lower_bound"]
    assert bool(bound["assumes"]) == (bound[bound["objective"]] is not None) == (bound["reason"] is None)
    assert dataset.attrs["bound_assumes"] == "; ".join(bound["assumes"] or [])


def test_growth_of_an_overloaded_fleet_by_hand(compared: Compared):
    """Five tasks arrive at each of four devices, one is run: 16 more wait after every block."""
    (found,) = summarise(compared(*WORLDS["unstable"][:1], **WORLDS["unstable"][1]))
    assert found.growth_per_block == pytest.approx(16.0, rel=1e-6)
    assert found.throughput.mean == pytest.approx(8.0)  # four tasks in a block of half a second
    assert "at the devices" in (found.reason or "")


def losses_of(dataset: xr.Dataset) -> np.ndarray:
    return np.stack([dataset[f"loss_{where}"].values for where in ("devices", "waiting", "service")])


def test_without_a_bound_there_are_no_losses_and_no_gap(compared: Compared):
    dataset = compared(["random"], queue="as_printed")
    (summary,) = summarise(dataset)
    assert summary.status == "ok"
    assert np.isnan(losses_of(dataset)).all()
    assert summary.gap is None
    assert "as printed" in (summary.no_gap or "")


def test_an_unstable_scheme_has_no_gap_and_no_losses(compared: Compared):
    """Two tasks arrive in a block, `full` sends one: what it loses does not add up to the cost above the bound."""
    dataset = compared(["full"])
    (summary,) = summarise(dataset)
    assert np.isnan(losses_of(dataset)).all()
    assert (summary.status, summary.gap) == ("unstable", None)
    assert summary.no_gap == "the scheme is unstable"


def test_json_has_no_infinite_number():
    value = {"a": float("nan"), "b": [float("inf"), 1.5, (-float("inf"),)], "c": True, 3: "x", "d": 7}
    assert plain(value) == {"a": None, "b": [None, 1.5, [None]], "c": True, "3": "x", "d": 7}


def test_cost_of_is_the_sum_of_its_components(dataset: xr.Dataset):
    assert cost_of(dataset, "random") == pytest.approx(
        dataset["cost"].sel(scheme="random").values.astype(float).sum(axis=-1)
    )


def test_a_dataset_says_where_it_comes_from(dataset: xr.Dataset):
    assert dataset.attrs["warmup"] == 50
    assert dataset.attrs["block_s"] == 0.5
    assert dataset["device_energy_j"].attrs["units"] == "J"
    assert (
        dataset["arrived"].sel(scheme="random").values.tolist()
        == dataset["arrived"].sel(scheme="constant").values.tolist()
    )
