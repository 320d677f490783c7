"""The gap of a comparison, by the advantage identity, against the plain ratio of costs, on both objectives."""

from typing import Any

import numpy as np
import pytest

from partway.experiments.comparison import compare
from partway.experiments.summary import cost_of, gap


@pytest.mark.parametrize("objective", ["average", pytest.param("discounted", marks=pytest.mark.slow)])
def test_the_gap_of_a_comparison(objective: str):
    overrides = {"devices": 4, "objective": objective, "weights.server_energy": 1e-3}
    names = ["priced", "drift", "local", "random", "oracle"]
    measured = compare("paper", overrides=overrides, schemes=names, blocks=800, seeds=16, precision="float64")
    every_loss_is_at_least_zero(measured)
    the_identity_agrees_with_the_plain_ratio_and_is_narrower(measured)
    the_bound_is_below_every_scheme(measured)


def every_loss_is_at_least_zero(measured: Any):
    for part in ("devices", "waiting", "service"):
        assert float(measured[f"loss_{part}"].min()) >= -1e-9


def the_identity_agrees_with_the_plain_ratio_and_is_narrower(measured: Any):
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


def the_bound_is_below_every_scheme(measured: Any):
    if measured.attrs["objective"] == "average":
        for name in map(str, measured["scheme"].values):
            late = cost_of(measured, name)[:, 400:].mean(axis=1)
            assert measured.attrs["bound"] < late.mean() + 3.5 * late.std(ddof=1) / 4, name
