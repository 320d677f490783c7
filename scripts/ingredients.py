"""Write a section of docs/results.md: `qlearning-designed` in five worlds, and what each of its ingredients brings.

Takes about half an hour.

make ingredients
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from pages import origin, paragraph, table, write_section

from partway.controllers.base import DeviceController, DeviceView, ServerController, ServerView
from partway.controllers.designed import DesignedDevice, DesignedDeviceState, DesignedServer, LearnedState
from partway.controllers.parametric import step_size
from partway.controllers.qlearning import QLearningDevice, QLearningServer
from partway.experiments.comparison import compare
from partway.experiments.statistics import unstable_seeds
from partway.experiments.summary import Summary, cost_of, summarise
from partway.schemes import SCHEMES, Scheme
from partway.system.equations import most_startable
from partway.system.stage_cost import column
from partway.system.types import Device, Server

DOCS = Path(__file__).parents[1] / "docs"
SEEDS, FEWER = 24, 8
"""Seeds in the worlds, and for each ingredient."""
NAME = "qlearning-designed"
WORLDS = (("paper", "devices=4"), ("paper", "devices=20"), ("paper", "devices=50"), ("ocr", ""), ("camera", ""))
BESIDE = ("constant", "decoupled")
COMMAND = f"partway compare --schemes {NAME} {' '.join(BESIDE)} --seeds {SEEDS}"
EARLY = 100
"""Blocks of which the cost is shown beside that of the last half."""

# Each takes one ingredient out.


class MostTasks(DesignedDevice):
    """As many tasks are started as f_max allows, the rule of `qlearning` (T5)."""

    batched = True

    def started(self, state: DesignedDeviceState, device: Device, view: DeviceView, offload: jax.Array) -> jax.Array:
        return most_startable(device, view.q, offload)


class LastArrivals(DesignedDevice):
    """The arrivals of the last block stand for those of the next, instead of the ones counted."""

    batched = True

    def act(self, state: DesignedDeviceState, device: Device, view: DeviceView, key: jax.Array) -> Any:
        last = column(0, device.slots + 1, view.q) == jnp.sum(view.arrivals, axis=0)
        return super().act(replace(state, arrive=last.astype(view.q.dtype)), device, view, key)


class RandomDevice(DesignedDevice):
    """The weights of the features are standard normals, as in `qlearning`, and Q starts at 0."""

    batched = True
    weights = np.random.default_rng(0).normal(size=(30, 4))

    def init(self, device: Device, view: DeviceView, key: jax.Array) -> DesignedDeviceState:
        state = super().init(device, view, key)
        return replace(state, learned=self.first_state(jnp.zeros_like(state.learned.theta), np.ones(30)))


class RandomServer(DesignedServer):
    """The same at the server."""

    weights = np.random.default_rng(1).normal(size=(30, 4))

    def init(self, server: Server, view: ServerView, key: jax.Array) -> LearnedState:
        return self.first_state(jnp.zeros_like(super().init(server, view, key).theta), np.ones(30))


class ZeroDevice(DesignedDevice):
    """Q starts at 0."""

    batched = True

    def init(self, device: Device, view: DeviceView, key: jax.Array) -> DesignedDeviceState:
        state = super().init(device, view, key)
        return replace(state, learned=replace(state.learned, theta=jnp.zeros_like(state.learned.theta)))


class ZeroServer(DesignedServer):
    """The same at the server."""

    def init(self, server: Server, view: ServerView, key: jax.Array) -> LearnedState:
        state = super().init(server, view, key)
        return replace(state, theta=jnp.zeros_like(state.theta))


class LinearServer(DesignedServer):
    """The server chooses among 16 rates between 0 and f_max, as in `qlearning`, whatever its queue is."""

    def choices(self, server: Server, view: ServerView) -> jax.Array:
        return jnp.linspace(0.0, 1.0, 16, dtype=view.backlog.dtype) * server.slots * server.slot_capacity


def gradient_step(
    self: Any, state: LearnedState, phi: jax.Array, cost: jax.Array, after: jax.Array, discount: jax.Array
) -> LearnedState:
    """A normalised gradient step instead of least squares, and no own step for the constant feature."""
    error = cost + discount * jnp.min(after, axis=0) - jnp.sum(state.theta * phi, axis=0)
    step = step_size(1.0, self.decay, state.block) * error * phi / jnp.sum(phi**2, axis=0)
    change = jnp.linalg.norm(step, axis=0) / jnp.linalg.norm(state.theta, axis=0)
    return LearnedState(state.theta + step, state.spread, state.block + 1, change)


class GradientDevice(DesignedDevice):
    """See `gradient_step`."""

    batched = True

    update = gradient_step


class GradientServer(DesignedServer):
    """The same at the server."""

    update = gradient_step


VARIANTS: dict[str, tuple[DeviceController, ServerController]] = {
    "all of it": (DesignedDevice(), DesignedServer()),
    "as few tasks left as f_max allows (T5)": (MostTasks(), DesignedServer()),
    "arrivals as in the last block": (LastArrivals(), DesignedServer()),
    "standard normal weights, Q = 0 at first": (RandomDevice(), RandomServer()),
    "Q = 0 at first": (ZeroDevice(), ZeroServer()),
    "normalised gradient steps": (GradientDevice(), GradientServer()),
    "16 server rates from 0 to f_max": (DesignedDevice(), LinearServer()),
    "no exploration": (DesignedDevice(explore=0.0), DesignedServer(explore=0.0)),
    "no learning, the start alone": (DesignedDevice(prior=0.0, explore=0.0), DesignedServer(prior=0.0, explore=0.0)),
    "this device with the server of `qlearning`": (DesignedDevice(), QLearningServer()),
    "the device of `qlearning` with this server": (QLearningDevice(), DesignedServer()),
    "`qlearning`": (QLearningDevice(), QLearningServer()),
}
HEAD = f"""
`{NAME}` keeps what section V fixes: Q linear in 30 sigmoids of weighted sums, the minimum over the next action, what
each party sees, and learning online from its own cost. Weights, inputs, actions, start and steps are chosen to work
(`partway/controllers/designed.py`), with the seeds 5000 to 5007 in `paper` with 20 devices; below are the seeds 0 to
{SEEDS - 1}, or to {FEWER - 1} for each ingredient. A device knows nothing of what its work costs at the server (T4),
nor does one of `decoupled`. Where `{NAME}` costs less than `decoupled`, its devices have learned to send a little less
than is best for them, which happens to help the server. Costs are per block; the gap, and where no blocks are given the
cost, is that after the first half of 2000 blocks. A run begins with empty queues, which makes its first blocks cheap.
"""
INGREDIENTS = f"""
What each ingredient brings, in `paper` with 20 devices and {FEWER} seeds: one is taken out at a time, and replaced by
what `qlearning` has where nothing else is said. The classes are in `scripts/ingredients.py`.
"""
READING = """
How to read it. (4) leaves open how many whole tasks wait on (T5); the choice that (20) itself makes, by the learned
Q and the counted arrivals, is the largest part. The server keeps its queue with designed features or with rates
that follow its queue, and is lost where it has neither. The start is what a device and a server know of their own
costs; alone it is about as good as `constant`, and from Q = 0 or with gradient steps learning ends far away.
Exploration brings nothing: the steps along q - offload say what another share would have cost. With 50 devices the
cost does not fall with time.
"""


def main() -> None:
    """Run everything and write the section."""
    parts = [
        origin(),
        "## The paper's Q-learning, built to work",
        paragraph(HEAD),
        worlds(),
        paragraph(INGREDIENTS),
        ingredients(),
        paragraph(READING),
    ]
    text = "\n\n".join(parts)
    write_section(DOCS / "results.md", "ingredients", text)


def worlds() -> str:
    """The scheme beside others in every world."""
    rows = list[Sequence[str]]()
    for scenario, change in WORLDS:
        overrides = [change] if change else []
        dataset = compare(scenario, overrides=overrides, schemes=(NAME, *BESIDE), seeds=SEEDS)
        world = f"`--scenario {scenario}{f' --set {change}' if change else ''}`"
        rows += [(world if i == 0 else "", *row(dataset, one)) for i, one in enumerate(summarise(dataset))]
        print(table((*TITLES,), rows[-3:]), flush=True)
    return table((f"`{COMMAND}` and", *TITLES), rows)


def ingredients() -> str:
    """One row for each variant."""
    rows = list[Sequence[str]]()
    for name, (device, server) in VARIANTS.items():
        SCHEMES[name] = Scheme(name, device, server, signals=(1, 0))
        dataset = compare("paper", schemes=[name], seeds=FEWER)
        rows.append(row(dataset, *summarise(dataset, None)))
        print(table(TITLES, rows[-1:]), flush=True)
    return table(TITLES, rows)


TITLES = ("", "gap %", "unstable seeds", "median cost", f"cost in blocks 0 to {EARLY - 1}", "cost after block 1000")


def row(dataset: xr.Dataset, one: Summary) -> Sequence[str]:
    """A scheme of a dataset by the columns of TITLES."""
    cost, work = cost_of(dataset, one.name), np.asarray(dataset["total_work"].sel(scheme=one.name), np.float64)
    unstable, _ = unstable_seeds(work, float(dataset["arrived_work"].sel(scheme=one.name).mean()))
    late = cost[:, cost.shape[1] // 2 :].mean(axis=1)
    gap = "-" if one.gap is None else interval(one.gap.whole.mean * 100, one.gap.whole.high * 100)
    known = f"`{one.name}`" if one.name in (NAME, *BESIDE) else one.name
    means = [interval(one.cost.mean, one.cost.high) if one.status == "ok" else one.status]
    return known, gap, f"{unstable.sum()}", f"{np.median(late):.4g}", f"{cost[:, :EARLY].mean():.4g}", *means


def interval(mean: float, high: float) -> str:
    """Mean ± half of an interval."""
    return f"{mean:.4g} ± {high - mean:.2g}"


if __name__ == "__main__":
    main()
