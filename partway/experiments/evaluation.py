"""Evaluation of an agent or a policy: cost, latency, energy, and the gap to the lower bound."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from partway.errors import InputError
from partway.experiments.agents import label_of
from partway.experiments.comparison import OnProgress, compare
from partway.experiments.failures import cause
from partway.experiments.summary import Summary, summarise
from partway.schemes import SCHEMES, Scheme, agent_scheme, as_scheme, is_agent


def evaluate(
    agent: Any,
    scenario: Any = "paper",
    *,
    environment: str | None = None,
    on_progress: OnProgress = lambda name, blocks: None,
    **how: Any,
) -> Summary:
    """Run an agent or a policy on a scenario, and summarise it as `partway.summarise` does a scheme.

    agent        anything with `act(observation)` or `predict(observation)`, such as a model of stable-baselines3; a
                 function that `jax.jit` has compiled; a dictionary of such for the agents of PettingZoo's environment
                 (`partway.experiments.agents`); a scheme's name, a `Scheme` or a device controller
    environment  of an agent: "partway/Device-v0", and then every device acts by itself and the server is the
                 post-decision one, or "partway/System-v0"; if not given, its attribute `environment`, the shape of
                 its `observation_space`, or else "partway/Device-v0"
    how          overrides, blocks, seeds, warmup, precision, bound, server: as in `partway.compare`

    `summary.cost.mean` is the cost per block, `summary.gap` the gap to the lower bound with its three sources,
    `summary.latency_s`, `summary.device_j` and `summary.server_j` the rest. Seeds are those of `compare`, which gives
    the same numbers. Raises InputError for what cannot be run.
    """
    agent = _made(agent) if isinstance(agent, type) else agent
    if isinstance(agent, str):
        return _summary(agent, scenario, on_progress, how)
    if is_agent(agent) or environment is not None:
        if not is_agent(agent):
            raise InputError(f"evaluate: environment is for agents, got {type(agent).__name__}")
        scheme = agent_scheme(agent, environment)
    else:
        scheme = as_scheme("evaluate", agent)
    return _of_row(label_of(agent), scheme, lambda name: _summary(name, scenario, on_progress, how))


def _made(kind: type) -> Any:
    try:
        return kind()
    except Exception as error:  # a user's class can fail in any way
        words = f"evaluate: {kind.__name__}() fails; give an object instead of the class"
        raise InputError(f"{words}: {cause(error)}") from error


def _summary(name: str, scenario: Any, on_progress: OnProgress, how: dict[str, Any]) -> Summary:
    return summarise(compare(scenario, schemes=[name], on_progress=on_progress, **how), reference=None)[0]


def _of_row(label: str, scheme: Scheme, summarised: Callable[[str], Summary]) -> Summary:
    """What is summarised while the scheme is in the table, under a name that nothing else has."""
    name = next(one for one in (label, *(f"{label}-{n}" for n in range(2, 1000))) if one not in SCHEMES)
    SCHEMES[name] = scheme
    try:
        return replace(summarised(name), name=label)
    finally:
        del SCHEMES[name]
