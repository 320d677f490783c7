"""The output step of Algorithms 1 and 2: a trained policy is played as it is, on seeds it has not seen."""

from collections.abc import Callable

import jax
import numpy as np
import pytest

from partway.simulation.rollout import Run, evaluate
from partway.system.world import World


@pytest.mark.parametrize("name", ["printed", "exact"])
def test_a_frozen_policy_is_played_without_learning(name: str, played: Callable[[str], Run], mixed_world: World):
    trained = played(name)
    seeds = range(100, 100 + len(trained.sums.arrived))
    frozen = evaluate(mixed_world, trained, name, list(seeds), 10, traces=True)
    for before, after in zip(
        jax.tree.leaves((trained.loop.device_state, trained.loop.server_state)),
        jax.tree.leaves((frozen.loop.device_state, frozen.loop.server_state)),
        strict=True,
    ):
        np.testing.assert_array_equal(before, after)
    assert frozen.traces is not None
    rates = np.asarray(frozen.traces.service_per_slot)
    np.testing.assert_array_equal(rates, np.broadcast_to(rates[:, :1], rates.shape))
    assert (np.asarray(frozen.sums.arrived) != np.asarray(trained.sums.arrived)[:, :10]).any()


def test_each_policy_needs_a_seed(played: Callable[[str], Run], mixed_world: World):
    with pytest.raises(ValueError, match="policies were trained"):
        evaluate(mixed_world, played("exact"), "exact", [1], 10)
