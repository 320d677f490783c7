"""The output step of Algorithms 1 and 2: a trained policy runs as it is, on seeds it has not seen."""

from collections.abc import Callable

import jax
import numpy as np
import pytest
from conftest import frozen

from partway.schemes import stream_of
from partway.simulation.rollout import Run
from partway.system.world import World


@pytest.mark.parametrize("name", ["parametric", pytest.param("parametric-printed", marks=pytest.mark.slow)])
def test_a_frozen_policy_is_played_without_learning(name: str, played: Callable[[str], Run], mixed_world: World):
    trained = played(name)
    seeds = range(100, 100 + len(trained.metrics.arrived))
    run = frozen(mixed_world, trained, stream_of(name), list(seeds), 10, traces=True)
    before = (trained.carry.device_state, trained.carry.server_state)
    after = (run.carry.device_state, run.carry.server_state)
    jax.tree.map(np.testing.assert_array_equal, before, after)
    assert run.traces is not None
    service = np.asarray(run.traces.service_per_slot)
    np.testing.assert_array_equal(service, np.broadcast_to(service[:, :1], service.shape))
    assert (np.asarray(run.metrics.arrived) != np.asarray(trained.metrics.arrived)[:, :10]).any()


def test_each_policy_needs_a_seed(played: Callable[[str], Run], mixed_world: World):
    with pytest.raises(ValueError, match="must have 1 runs, one per seed, got 2"):
        frozen(mixed_world, played("parametric"), stream_of("parametric"), [1], 10)
