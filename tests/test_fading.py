"""A law of the fading is one: what a run draws, what the bound integrates over and what a plan shows agree."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import world_of
from scipy import integrate, special, stats

from partway.experiments.comparison import compare
from partway.experiments.summary import summarise
from partway.scenario.loading import load
from partway.system.exogenous import gains
from partway.system.fading import Independent, Rayleigh

NODES = np.array([0.01, 0.3, 1.0, 4.0])
LEVELS = np.array([0.05, 0.5, 0.99])


class Weibull(Independent):
    """Weibull fading with a shape above 1, a law from outside with a parameter: this class is all that it takes."""

    shape: float = 2.0
    name: ClassVar[str] = "Weibull"

    @property
    def scale(self) -> Any:
        return 1.0 / special.gamma(1.0 + 1.0 / self.shape)

    def from_uniform(self, uniform: jax.Array) -> jax.Array:
        scale = jnp.exp(-jax.scipy.special.gammaln(1.0 + 1.0 / self.shape))
        return scale * (-jnp.log(uniform)) ** (1.0 / self.shape)

    def quantile(self, probability: Any) -> np.ndarray:
        return np.asarray(self.scale * (-np.log1p(-np.asarray(probability))) ** (1.0 / self.shape))

    def probability_below(self, x: float) -> float:
        return float(-np.expm1(-((x / self.scale) ** self.shape)))

    def interval_probabilities(self, x: np.ndarray) -> np.ndarray:
        above = np.exp(-((x / self.scale) ** self.shape))
        return np.append(-np.diff(above), above[-1])

    def interval_losses(self, x: np.ndarray) -> np.ndarray:
        a = 1.0 - 1.0 / self.shape
        above = special.gamma(a) * special.gammaincc(a, (x / self.scale) ** self.shape) / self.scale
        return np.append(-np.diff(above), above[-1])


LAWS: list[tuple[Independent, Any]] = [
    (Rayleigh(), stats.expon()),
    (Weibull(2.5), stats.weibull_min(2.5, scale=1.0 / special.gamma(1.4))),
]


@pytest.mark.parametrize(("law", "known"), LAWS)
class TestALaw:
    def test_quantiles_are_those_of_what_is_drawn(self, law: Independent, known: Any):
        """x exceeds the quantile of p where the uniform number is below 1 - p."""
        np.testing.assert_allclose(law.quantile(LEVELS), np.asarray(law.from_uniform(1.0 - LEVELS)), rtol=1e-6)
        np.testing.assert_allclose(law.quantile(LEVELS), known.ppf(LEVELS), rtol=1e-12)
        assert known.mean() == pytest.approx(1.0, rel=1e-12)

    def test_quantiles_invert_the_probability(self, law: Independent, known: Any):
        assert [law.probability_below(x) for x in law.quantile(LEVELS)] == pytest.approx(LEVELS, rel=1e-12)

    def test_intervals_have_the_probability_and_the_mean_loss_of_the_law(self, law: Independent, known: Any):
        ends = list(zip(NODES, [*NODES[1:], np.inf], strict=True))
        losses = [integrate.quad(lambda x: known.pdf(x) / x, low, high)[0] for low, high in ends]
        probabilities = law.interval_probabilities(NODES)
        assert probabilities == pytest.approx([known.cdf(high) - known.cdf(low) for low, high in ends], rel=1e-10)
        assert law.interval_losses(NODES) == pytest.approx(losses, rel=1e-7)
        assert law.probability_below(NODES[0]) + probabilities.sum() == pytest.approx(1.0, rel=1e-12)


def test_a_law_with_a_parameter_is_one_class():
    """What is drawn has its distribution, and the bound is one on it: `priced` comes close, but not below."""
    fading = Weibull(3.0)
    world = world_of(load({"devices": 2}, {"radio.fading": fading}))
    drawn = np.asarray(gains(world, 0, np.arange(4000, dtype=np.uint32))) / world.devices.mean_gain
    assert stats.kstest(drawn.ravel(), stats.weibull_min(3.0, scale=float(fading.scale)).cdf).pvalue > 1e-5
    own: dict[str, Any] = {"overrides": {"devices": 2, "radio.fading": fading}, "blocks": 200, "seeds": 2}
    near, far = (one.gap for one in summarise(compare("paper", schemes=["priced", "local"], **own)))
    assert near
    assert far
    assert near.devices < 0.1 * far.devices
