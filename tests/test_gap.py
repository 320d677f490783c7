"""The gap of a comparison, by the advantage identity, against the plain ratio of costs, on both objectives."""

import numpy as np
import pytest
import xarray as xr

from partway.experiments.comparison import compare
from partway.experiments.summary import cost_of, gap, summarise

SEEDS = 16


@pytest.mark.parametrize(
    ("objective", "names"),
    [
        ("average", ["priced"]),
        pytest.param("average", ["drift", "local", "random", "oracle"], marks=pytest.mark.slow),
        pytest.param("discounted", ["priced", "drift", "local", "random", "oracle"], marks=pytest.mark.slow),
    ],
)
def test_the_gap_of_a_comparison(objective: str, names: list[str]):
    overrides = {"devices": 4, "objective": objective, "weights.server_energy": 1e-3}
    measured = compare("paper", overrides=overrides, schemes=names, blocks=800, seeds=SEEDS, precision="float64")
    check_every_loss_is_at_least_zero(measured)
    for name in names:
        check_the_identity_agrees_with_the_plain_ratio(measured, name)
    if objective == "average":
        check_the_summaries(measured)


def check_every_loss_is_at_least_zero(measured: xr.Dataset) -> None:
    for where in ("devices", "waiting", "service"):
        assert float(measured[f"loss_{where}"].min()) >= -1e-9


def check_the_identity_agrees_with_the_plain_ratio(measured: xr.Dataset, name: str) -> None:
    """Within the noise of the costs; for schemes near the bound the identity has an interval far narrower than that."""
    discount, bound = float(measured.attrs["discount"]), float(measured.attrs["bound"])
    cost = cost_of(measured, name)
    average = measured.attrs["objective"] == "average"
    per_seed = cost[:, 400:].mean(axis=1) if average else cost @ discount ** np.arange(cost.shape[1])
    ratio, noise = per_seed / bound - 1, 3.5 * np.std(per_seed / bound, ddof=1) / np.sqrt(SEEDS)
    whole = gap(measured, name).whole
    assert whole.mean == pytest.approx(float(ratio.mean()), abs=noise + 2e-3)
    assert whole.mean > 0
    if name in ("priced", "oracle"):
        assert whole.high - whole.low < 0.5 * noise


def check_the_summaries(measured: xr.Dataset) -> None:
    """No late mean cost is below the bound; of `priced` the two intervals overlap, and one is a tenth of the other."""
    bound = measured.attrs["bound"]
    for summary in summarise(measured):
        late = cost_of(measured, summary.name)[:, 400:].mean(axis=1)
        assert bound < late.mean() + 3.5 * late.std(ddof=1) / np.sqrt(SEEDS)
        assert summary.gap is not None
        whole, (low, high) = summary.gap.whole, np.array([summary.cost.low, summary.cost.high]) / bound - 1
        assert late.mean() / bound - 1 == pytest.approx((low + high) / 2, rel=1e-9)
        assert whole.mean == pytest.approx(summary.gap.devices + summary.gap.waiting + summary.gap.service, rel=1e-9)
        if summary.name == "priced":
            assert low < whole.high
            assert whole.low < high
            assert high - low > 10 * (whole.high - whole.low)
            assert whole.mean < 0.05
