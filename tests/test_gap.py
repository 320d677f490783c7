"""The gap of a comparison, by the advantage identity, against the plain ratio of costs, on both objectives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from test_fading import Weibull

from partway.experiments.comparison import compare
from partway.experiments.summary import cost_of, gap, summarise
from partway.measurement.gap import LOSSES
from partway.schemes import SCHEMES, agent_scheme

SEEDS = 16
LONG = 2000


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
    ratio, noise = per_seed / bound - 1, half_interval(per_seed / bound)
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
        assert bound < late.mean() + half_interval(late)
        assert summary.gap is not None
        whole, (low, high) = summary.gap.whole, np.array([summary.cost.low, summary.cost.high]) / bound - 1
        assert late.mean() / bound - 1 == pytest.approx((low + high) / 2, rel=1e-9)
        assert whole.mean == pytest.approx(summary.gap.devices + summary.gap.waiting + summary.gap.service, rel=1e-9)
        if summary.name == "priced":
            assert low < whole.high
            assert whole.low < high
            assert high - low > 10 * (whole.high - whole.low)
            assert whole.mean < 0.05


@pytest.mark.slow
def test_the_gap_of_an_agent_from_outside_in_a_channel_from_outside(monkeypatch: pytest.MonkeyPatch):
    """A long run of a law and an agent that Partway does not know: costs respect the bound, and the gap is their mean.

    What the agent costs more than `priced` has less noise: both have met the same arrivals and channels.
    """
    monkeypatch.setitem(SCHEMES, "outside", agent_scheme(careful, None))
    overrides = {"devices": 4, "weights.server_energy": 1e-3, "radio.fading": Weibull(3.0)}
    names = ["priced", "outside"]
    measured = compare("paper", overrides=overrides, schemes=names, blocks=LONG, seeds=SEEDS, precision="float64")
    check_every_loss_is_at_least_zero(measured)
    bound, late = float(measured.attrs["bound"]), slice(LONG // 2, None)
    above, gaps = list[np.ndarray](), list[np.ndarray]()
    for name in names:
        losses = np.sum([measured[f"loss_{where}"].sel(scheme=name) for where in LOSSES], axis=0)
        above.append(cost_of(measured, name)[:, late].mean(axis=1) / bound - 1)
        gaps.append(losses[:, late].mean(axis=1) / bound)
        assert gap(measured, name).whole.mean == pytest.approx(gaps[-1].mean(), rel=1e-9)
        assert above[-1].mean() > -half_interval(above[-1])
        assert above[-1].mean() == pytest.approx(gaps[-1].mean(), abs=half_interval(above[-1]))
    unlike = (above[1] - above[0]) - (gaps[1] - gaps[0])
    assert abs(unlike.mean()) < half_interval(unlike) < 0.01 * gaps[1].mean()


def half_interval(by_seed: np.ndarray) -> float:
    """3.5 standard errors of a mean over seeds."""
    return 3.5 * float(np.std(by_seed, ddof=1)) / np.sqrt(len(by_seed))


@jax.jit
def careful(observation: jax.Array) -> jax.Array:
    """More tasks are started when many wait, and half of the last one is sent while the radio is cheap."""
    return jnp.stack([2.0 * observation[0] - 0.6, jnp.where(observation[3] > 0.5, 0.0, -1.0)])
