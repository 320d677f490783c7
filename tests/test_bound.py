"""The lower bound: check numbers, concavity, what it ignores, where there is none, below what is measured."""

from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest

from partway.bound import NoBound, lower_bound
from partway.comparison import compare
from partway.results import cost_of, gap
from partway.scenario import load
from partway.world import World, build, place


def world_of(**overrides: Any) -> World:
    scenario = load("paper", {name.replace("__", "."): value for name, value in overrides.items()})
    return build(scenario, place(scenario))


@pytest.mark.parametrize(("devices", "value"), [(20, 124.18), (50, 356.84)])
def test_check_numbers_of_the_preset(devices: int, value: float):
    assert lower_bound(world_of(devices=devices)).value == pytest.approx(value, rel=2e-4)


def test_no_other_price_gives_more_and_the_bound_is_concave_in_it():
    world = world_of(devices=4, weights__server_energy=2.5e-3)
    best = lower_bound(world)
    price = float(best.certificate.price)
    values = np.array([lower_bound(world, price=factor * price).value for factor in (0.0, 0.5, 1.0, 1.5, 2.0)])
    assert (values <= best.value * (1 + 1e-9)).all()
    assert (np.diff(values, 2) < 0).all()


def test_the_order_of_devices_does_not_matter():
    world = world_of(devices=5)
    turned = replace(
        world,
        devices=jax.tree.map(lambda leaf: leaf[..., ::-1], world.devices),
        arrival_threshold=world.arrival_threshold[::-1],
    )
    assert lower_bound(turned).value == pytest.approx(lower_bound(world).value, rel=1e-9)


def test_a_discounted_price_stays_below_its_cap():
    world = world_of(devices=3, objective="discounted", discount=0.5, weights__server_energy=1.0)
    assert float(lower_bound(world).certificate.price) <= float(world.server.queue_weight) + 1e-12


def test_finer_intervals_are_tighter():
    world = world_of(devices=3)
    coarse, fine = lower_bound(world, bins=32), lower_bound(world, bins=256)
    assert coarse.value <= fine.value <= coarse.value + coarse.loose
    assert 0 <= fine.loose < coarse.loose


@pytest.mark.parametrize(
    ("overrides", "why"),
    [
        ({"queue": "as_printed"}, "as printed"),
        ({"weights__server_queue": 0.0}, "costs nothing"),
        ({"device__arrival_prob": 0.9, "device__cpu_max_hz": 30e9}, "more tasks than it can take up"),
    ],
)
def test_where_there_is_no_bound_it_is_said(overrides: dict[str, Any], why: str):
    with pytest.raises(NoBound, match=why):
        lower_bound(world_of(devices=2, **overrides))


@pytest.fixture(scope="module", params=["average", "discounted"])
def measured(request: pytest.FixtureRequest):
    overrides = {"devices": 4, "objective": request.param, "weights.server_energy": 1e-3}
    names = ["priced", "decoupled", "drift", "local", "constant", "random", "oracle"]
    return compare("paper", overrides=overrides, schemes=names, blocks=800, seeds=16, precision="float64")


def test_every_loss_is_at_least_zero(measured: Any):
    for part in ("devices", "waiting", "rate"):
        assert float(measured[f"loss_{part}"].min()) >= -1e-9


def test_the_identity_agrees_with_the_plain_ratio_and_is_narrower(measured: Any):
    discount, bound = float(measured.attrs["discount"]), float(measured.attrs["bound"])
    for name in map(str, measured["scheme"].values):
        cost = cost_of(measured, name)
        average = measured.attrs["objective"] == "average"
        per_seed = cost[:, 400:].mean(axis=1) if average else cost @ discount ** np.arange(cost.shape[1])
        ratio, noise = per_seed / bound - 1, 3.5 * np.std(per_seed / bound, ddof=1) / 4
        found = gap(measured, name).whole
        assert found.mean == pytest.approx(float(ratio.mean()), abs=noise + 2e-3), name
        assert found.mean > 0, name
        if name in ("priced", "oracle"):
            assert found.high - found.low < 0.5 * noise


def test_the_bound_is_below_every_scheme(measured: Any):
    if measured.attrs["objective"] == "average":
        for name in map(str, measured["scheme"].values):
            late = cost_of(measured, name)[:, 400:].mean(axis=1)
            assert measured.attrs["bound"] < late.mean() + 3.5 * late.std(ddof=1) / 4, name
