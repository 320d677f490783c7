"""What the author of a policy relies on: declared broadcast fields, controllers that are values, one short class."""

import ast
import inspect
import textwrap
from dataclasses import FrozenInstanceError, fields, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import CALL, Play

from partway.controllers import base
from partway.controllers.base import (
    ControllerPair,
    DeviceController,
    DeviceView,
    Received,
    ServerController,
)
from partway.controllers.baselines import Constant, Local, Steady
from partway.controllers.parametric import Algorithm1
from partway.experiments.comparison import compare
from partway.pytree import cast_floats
from partway.schemes import SCHEMES
from partway.simulation import sharding
from partway.simulation.rollout import rollout
from partway.system.types import Broadcast, Device, DeviceAction
from partway.system.world import World

# Fields of the broadcast


class Reader(DeviceController):
    """Reads the price without declaring it."""

    def act(self, state: Any, device: Any, view: DeviceView, key: Any) -> DeviceAction:
        return DeviceAction(view.q, 0.5 * view.broadcast.price)


class LateReader(Local):
    """Reads the price when it learns."""

    def learn(self, state: Any, device: Any, view: Any, action: Any, cost: Any, next_view: DeviceView) -> Any:
        return (state, next_view.broadcast.price)[0]


@pytest.mark.parametrize(("controller", "chunk"), [(Reader, 1024), (Reader, 2), (LateReader, 1024)])
def test_an_undeclared_field_of_the_broadcast_does_not_exist(
    controller: type[DeviceController], chunk: int, mixed_world: World, monkeypatch: pytest.MonkeyPatch
):
    """Where the devices run block by block, or ahead of the server; when they act, or learn."""
    monkeypatch.setattr(sharding, "CHUNK", chunk)
    with pytest.raises(AttributeError, match=r"`broadcast\.price` is not declared: add 'price' to `uses_broadcast`"):
        rollout(mixed_world, ControllerPair(controller(), Steady()), "own", [0], 10)


@pytest.mark.parametrize("names", [("prize",), "price", ("price", "q")])
def test_only_fields_of_the_broadcast_can_be_declared(names: Any):
    with pytest.raises(TypeError, match="must be a tuple of fields of the broadcast, which are price, service_rate"):
        type("Misspelt", (Reader,), {"uses_broadcast": names})


@pytest.mark.parametrize(
    ("base", "name", "meant"),
    [
        (DeviceController, "hears", "uses_broadcast"),
        (DeviceController, "use_broadcast", "uses_broadcast"),
        (DeviceController, "takes_fleets", "batched"),
        (DeviceController, "Batched", "batched"),
        (ServerController, "see_queues", "sees_queues"),
    ],
)
def test_an_attribute_under_an_old_or_a_mistyped_name_is_refused(base: type, name: str, meant: str):
    """Of others that a class may have, `batch` and `limit` are the most alike."""
    with pytest.raises(TypeError, match=rf"^Mine\.{name} is not read by anything: call it `{meant}`$"):
        type("Mine", (base,), {name: True})
    assert type("Mine", (base,), {"batch": 3, "limit": 4, "listens": lambda self: True}).__name__ == "Mine"


def test_a_declared_field_of_the_broadcast_is_seen_and_can_be_remembered(play: Play, mixed_world: World):
    """It sends when the price is higher than in the block before: sometimes."""

    class Remembering(DeviceController):
        uses_broadcast = ("price",)

        def init(self, device: Any, view: DeviceView, key: Any) -> Broadcast:
            return view.broadcast

        def act(self, state: Broadcast, device: Any, view: DeviceView, key: Any) -> DeviceAction:
            return DeviceAction(view.q, jnp.where(view.broadcast.price > state.price, 1.0, 0.0))

        def learn(self, state: Any, device: Any, view: DeviceView, *happened: Any) -> Broadcast:
            return view.broadcast

    pair = ControllerPair(Remembering(), SCHEMES["priced"].server)
    sent = play(pair, mixed_world, CALL).metrics.sent
    assert (np.count_nonzero(sent, axis=1) > 0).all()
    assert (np.count_nonzero(sent, axis=1) < CALL).all()


# Controllers are values


@pytest.fixture(params=SCHEMES)
def scheme(request: pytest.FixtureRequest) -> str:
    return request.param


def both_controllers(scheme: str) -> list[Any]:
    return [SCHEMES[scheme].device, SCHEMES[scheme].server]


def test_controllers_hash_compare_print_and_are_frozen(scheme: str):
    for one in both_controllers(scheme):
        twin = replace(one)
        assert one == twin
        assert hash(one) == hash(twin)
        settings = [f.name for f in fields(one) if isinstance(getattr(one, f.name), float)]
        for name in settings:
            other = replace(one, **{name: getattr(one, name) + 0.125})
            assert one != other
            assert f"{name}={getattr(other, name)}" in repr(other)
        with pytest.raises((FrozenInstanceError, TypeError)):
            one.anything = 1.0


def floats_of(controller: Any) -> list[float]:
    """Its hyperparameters that are floats, and those of a controller in it."""
    values = [getattr(controller, f.name) for f in fields(controller)]
    inner = [value for value in values if isinstance(value, ServerController)]
    return [value for value in values if isinstance(value, float)] + [x for one in inner for x in floats_of(one)]


def test_hyperparameters_are_leaves_and_switches_are_not(scheme: str):
    """Floats can be traced, differentiated and vmapped; whole numbers, switches and words are part of the program."""
    for one in both_controllers(scheme):
        assert sorted(jax.tree.leaves(one)) == sorted(floats_of(one))


@pytest.fixture
def first_device(mixed_world: World) -> Device:
    """The first of the mixed world's devices, alone."""
    return jax.tree.map(lambda leaf: leaf[..., 0], cast_floats(mixed_world, "float32").devices)


def view_of(device: Device, q: float) -> DeviceView:
    """What a device sees that has q tasks and its mean gain, if it uses no broadcast."""
    return DeviceView(jnp.float32(q), device.mean_gain, jnp.zeros(5, jnp.float32), Received())


def test_hyperparameters_vmap(first_device: Device, mixed_world: World):
    """A learner at three steps at once learns what each would have learned by itself."""
    rule = Algorithm1().setup(jax.random.key(0), cast_floats(mixed_world, "float32").devices)
    view = view_of(first_device, 2.0)
    state = rule.init(first_device, view, jax.random.key(1))
    action = DeviceAction(jnp.float32(2.0), jnp.float32(0.5), jnp.float32(0.1))

    def theta(step: jax.Array) -> jax.Array:
        return replace(rule, step=step).learn(state, first_device, view, action, jnp.float32(1.0), view).theta

    steps = jnp.array([0.0, 0.01, 0.1], jnp.float32)
    at_once, alone = jax.jit(jax.vmap(theta))(steps), jax.jit(theta)
    assert np.allclose(at_once, np.stack([alone(step) for step in steps]), rtol=1e-5)
    assert len({tuple(row) for row in np.asarray(at_once)}) == 3


def test_policies_vmap(first_device: Device):
    """Two constant policies in one program: of three tasks one is started and none sent; two, and a quarter of one."""
    view = view_of(first_device, 3.0)
    policies = Constant(offload=jnp.array([0.0, 0.25]), started=jnp.array([1.0, 2.0]))
    actions = jax.vmap(lambda policy: policy.act((), first_device, view, jax.random.key(0)))(policies)
    assert actions.offload.tolist() == [0.0, 0.25]
    assert actions.started.tolist() == [1.0, 2.0]


# A new policy in ten lines


def example() -> str:
    """The example in the docstring of `partway.controllers.base`."""
    text = str(inspect.getdoc(base)).split("`act`:\n")[1].split("\nA policy that learns")[0]
    return textwrap.dedent(text).strip("\n") + "\n"


@pytest.mark.usefixtures("small_calls")
def test_a_new_policy_in_ten_lines_runs_through_compare(user_folder: Path):
    """The documented example, word for word: it sends half a task whenever one waits, and runs the rest at once."""
    source = example()
    assert len([line for line in source.splitlines() if line.strip()]) <= 10
    assert ast.parse(source).body[0].name == "Half"
    (user_folder / "mine.py").write_text(
        "from partway import DeviceAction, DeviceController, most_startable\n\n\n" + source
    )
    half = compare(
        "paper", overrides={"devices": 4}, schemes=["mine:Half"], blocks=100, seeds=2, server="constant", bound=False
    ).sel(scheme="mine:Half")
    assert half.status == "ok"
    assert np.allclose(half.sent, 0.5 * 4 * half.radio_utilisation, rtol=1e-6)  # each of the four that sends
    assert float(half.radio_utilisation.mean()) > 0.8  # two tasks arrive per block
