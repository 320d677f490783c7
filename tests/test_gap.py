"""The gap of a comparison, by the advantage identity, against the plain ratio of costs, on both objectives."""

from typing import Any

import numpy as np
import pytest

from partway.comparison import compare
from partway.results import cost_of, gap


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
