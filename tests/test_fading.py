"""The law of the fading is one: what a run draws, what the bound integrates over and what a plan shows agree."""

import numpy as np
import pytest
from scipy import integrate, stats

from partway.system.fading import (
    fading_from_uniform,
    fading_quantile,
    interval_losses,
    interval_probabilities,
    probability_below,
)

NODES = np.array([0.01, 0.3, 1.0, 4.0])
LEVELS = np.array([0.05, 0.5, 0.99])


def test_quantiles_are_those_of_what_is_drawn():
    """x exceeds the quantile of p where the uniform number is below 1 - p."""
    np.testing.assert_allclose(fading_quantile(LEVELS), np.asarray(fading_from_uniform(1.0 - LEVELS)), rtol=1e-6)


def test_quantiles_invert_the_probability():
    assert [probability_below(x) for x in fading_quantile(LEVELS)] == pytest.approx(LEVELS, rel=1e-12)


def test_intervals_have_the_probability_and_the_mean_loss_of_the_law():
    ends = [*NODES[1:], np.inf]
    probabilities = [stats.expon.cdf(high) - stats.expon.cdf(low) for low, high in zip(NODES, ends, strict=True)]
    losses = [integrate.quad(lambda x: np.exp(-x) / x, low, high)[0] for low, high in zip(NODES, ends, strict=True)]
    assert interval_probabilities(NODES) == pytest.approx(probabilities, rel=1e-10)
    assert interval_losses(NODES) == pytest.approx(losses, rel=1e-7)
    assert probability_below(NODES[0]) + interval_probabilities(NODES).sum() == pytest.approx(1.0, rel=1e-12)
