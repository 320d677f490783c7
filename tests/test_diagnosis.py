"""The first mistakes of a policy's author are answered with one line: class, line and remedy."""

import textwrap
from pathlib import Path

import numpy as np
import pytest

from partway import InputError
from partway.experiments.comparison import compare
from partway.experiments.plan import make_plan
from partway.experiments.status import with_note

MISTAKES = {
    "if on an array": (
        """
        if view.q > 1:
            return DeviceAction(started=view.q, offload=1.0)
        return DeviceAction(started=view.q, offload=0.0)
        """,
        r"scheme 'mine:Mine': Mine.act, line 7 of mine.py: `if`, .* use jnp.where",
    ),
    "undeclared field": (
        "return DeviceAction(started=view.q, offload=view.broadcast.price)",
        r"Mine.act, line 7 of mine.py: AttributeError: `broadcast.price` is not declared: add 'price' to .*`uses_",
    ),
    "no such field": (
        "return DeviceAction(started=view.q, offload=view.broadcast.prize)",
        r"a broadcast has no field 'prize'; its fields are price, service_rate, backlog, share",
    ),
    "NumPy": (
        "return DeviceAction(started=view.q, offload=float(view.q))",
        r"Mine.act, line 7 of mine.py: int, float, range and shapes need values, .* use jax.numpy",
    ),
    "index into a list": (
        "return DeviceAction(started=view.q, offload=[0.0, 1.0][(view.q > 1).astype(int)])",
        r"Mine.act, line 7 of mine.py: `range`, and an index into a list .* index a jnp.array",
    ),
    "shape": (
        "return DeviceAction(started=view.q, offload=view.arrivals)",
        r"Mine.act: offload must be one number, not an array of shape \(5,\)",
    ),
    "no action": ("return view.q, 0.5", r"Mine.act: must return a DeviceAction, not tuple"),
    "exit": (
        "import sys; sys.exit(3)",
        r"Mine.act, line 7 of mine.py: SystemExit: 3",
    ),
    "an error without words": ("assert False", r"Mine.act, line 7 of mine.py: AssertionError:$"),
    "no number": (
        "return DeviceAction(started=view.q, offload=None)",
        r"Mine.act: offload must be one number, not NoneType",
    ),
    "complex": (
        "return DeviceAction(started=view.q, offload=1j * view.q)",
        r"Mine.act: offload must be one number, not complex64",
    ),
    "power": (
        "return DeviceAction(started=view.q, offload=0.5, power=view.arrivals)",
        r"Mine.act: power must be one number, not an array of shape \(5,\)",
    ),
    "any error": ("return unknown", r"Mine.act, line 7 of mine.py: NameError: name 'unknown' is not defined"),
}


@pytest.fixture
def policy(user_folder: Path) -> Path:
    """A module of the user's, in the current folder."""
    return user_folder / "mine.py"


def written(policy: Path, act: str, more: str = "") -> None:
    head = "import jax.numpy as jnp\nfrom partway import DeviceAction, DeviceController\n\n\n"
    head += "class Mine(DeviceController):\n"
    body = textwrap.indent("def act(self, state, device, view, key):\n", " " * 4)
    body += textwrap.indent(textwrap.dedent(act).strip("\n") + "\n", " " * 8)
    policy.write_text(head + body + textwrap.indent(textwrap.dedent(more), " " * 4))


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_answered_with_one_line(mistake: str, policy: Path):
    act, expected = MISTAKES[mistake]
    written(policy, act)
    with pytest.raises(InputError, match=expected) as caught:
        make_plan("paper", schemes=["mine:Mine"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("learn", "expected"),
    [
        ("return state + cost", r"Mine.learn: state is int32\[\] in `init` and float32\[\] in `learn`"),
        ("return (state, state)", "Mine.learn: must return a state of the same structure as `init`"),
        ("return jnp.zeros(2, jnp.int32)", r"Mine.learn: state is int32\[\] in `init` and int32\[2\] in `learn`"),
    ],
)
def test_a_state_keeps_its_structure_shape_and_type(learn: str, expected: str, policy: Path):
    more = f"""
    def init(self, device, view, key):
        return jnp.zeros((), jnp.int32)

    def learn(self, state, device, view, action, cost, next_view):
        {learn}
    """
    written(policy, "return DeviceAction(started=view.q, offload=0.5)", more)
    with pytest.raises(InputError, match=expected):
        make_plan("paper", schemes=["mine:Mine"])


WHOLE: dict[str, tuple[str, str]] = {
    "of the whole fleet": (
        """
        batched = True

        def learn(self, state, device, view, action, cost, next_view):
            return state if cost.ndim == 0 else unknown
        """,
        r"scheme 'mine:Mine': Mine, line \d+ of mine.py: NameError: name 'unknown' is not defined",
    ),
    "of the fleet's states": (
        """
        def init_fleet(self, devices, views, keys):
            return jnp.zeros((3, 1))
        """,
        r"scheme 'mine:Mine': Mine: ValueError: ",
    ),
    "of the change": (
        """
        def relative_change(self, state):
            return jnp.zeros(2)
        """,
        r"Mine.relative_change: the result must be one number, not an array of shape \(2,\)",
    ),
}


@pytest.mark.parametrize("mistake", WHOLE)
def test_everything_that_a_run_calls_is_traced_before(mistake: str, policy: Path):
    """It would end a comparison half way, when other schemes have run for hours."""
    more, expected = WHOLE[mistake]
    written(policy, "return DeviceAction(started=view.q, offload=0.5)", more)
    with pytest.raises(InputError, match=expected):
        make_plan({"devices": 2}, schemes=["local", "mine:Mine"])


def test_a_policy_is_traced_in_the_precision_of_the_run(policy: Path):
    """A state that is float32 in `init` stays so in float32, and becomes float64 in float64."""
    more = """
    def init(self, device, view, key):
        return jnp.float32(0)

    def learn(self, state, device, view, action, cost, next_view):
        return state + cost
    """
    written(policy, "return DeviceAction(started=view.q, offload=0.5)", more)
    assert make_plan({"devices": 2}, schemes=["mine:Mine"]).precision == "float32"
    with pytest.raises(InputError, match=r"state is float32\[\] in `init` and float64\[\] in `learn`"):
        make_plan({"devices": 2}, schemes=["mine:Mine"], precision="float64")


SERVER = """
import jax.numpy as jnp
from partway import SCHEMES, Scheme, ServerAction, ServerController
from partway.system.types import Broadcast

class Busy(ServerController):
    def act(self, state, server, view, key):
        one = jnp.ones_like(view.backlog)
        service = jnp.full(server.slots, 2.0 * server.slot_capacity)
        return ServerAction(service, Broadcast(price={price}, service_rate=one, backlog=one, share=view.queues))

SCHEME = Scheme("busy", SCHEMES["local"].device, Busy())
"""


def test_a_broadcast_has_one_number_for_all_devices(policy: Path):
    policy.write_text(SERVER.format(price="view.queues"))
    with pytest.raises(InputError, match=r"Busy.act: price must be one number, not an array of shape \(2,\)"):
        make_plan({"devices": 2}, schemes=["mine:SCHEME"])


def test_a_module_that_exits_is_refused(policy: Path):
    policy.write_text("raise SystemExit('done')\n")
    with pytest.raises(InputError, match="scheme 'mine:Mine': SystemExit: done"):
        make_plan("paper", schemes=["mine:Mine"])


# Actions out of range


def test_actions_out_of_range_are_clipped_and_counted(policy: Path):
    """It offloads twice a task in every block, and starts one more than wait: each device, 10 blocks, two seeds."""
    written(policy, "return DeviceAction(started=view.q + 1.0, offload=2.0)")
    data = compare({"devices": 2}, schemes=["mine:Mine", "full"], blocks=10, seeds=2, bound=False)
    assert data["status"].values.tolist()[0] == "ok"
    reason, none = map(str, data["reason"].values)
    assert reason.startswith("40 actions out of range were clipped (1 per device and block): offload is from 0 to 1, ")
    assert "clipped" not in none
    assert float(data["started"].sel(scheme="mine:Mine").max()) > 0


def test_service_out_of_range_is_counted(policy: Path):
    policy.write_text(SERVER.format(price="one"))
    data = compare({"devices": 2}, schemes=["mine:SCHEME"], blocks=10, seeds=2, bound=False)
    assert str(data["reason"].values[0]).startswith("20 actions out of range were clipped (0.5 per device and block)")
    assert float(data["server_utilisation"].max()) <= 1.0


def test_a_note_stands_beside_a_reason():
    plan = make_plan({"devices": 4}, schemes=["local"], seeds=2, blocks=10)
    noted = with_note("unstable in 1 of 2 seeds", np.full((2, 10), 3), plan)
    assert with_note(None, np.zeros((2, 10), int), plan) == with_note(None, None, plan) == ""
    assert noted.startswith(
        "unstable in 1 of 2 seeds; 60 actions out of range were clipped (0.75 per device and block)"
    )


def test_a_controller_without_act_is_refused(policy: Path):
    policy.write_text("from partway import DeviceController\n\n\nclass Mine(DeviceController):\n    pass\n")
    with pytest.raises(InputError, match="it needs a method `act`"):
        make_plan("paper", schemes=["mine:Mine"])


def test_hyperparameters_are_set_from_outside(policy: Path):
    written(policy, "return DeviceAction(started=view.q, offload=jnp.where(view.q > self.limit, 1.0, 0.0))")
    policy.write_text(
        policy.read_text().replace("(DeviceController):\n", "(DeviceController):\n    limit: float = 2.0\n\n")
    )
    plan = make_plan("paper", overrides=["schemes.mine:Mine.limit=3"], schemes=["mine:Mine"])
    assert plan.scenario.schemes == {"mine:Mine": {"limit": 3}}
    with pytest.raises(InputError, match=r"unknown field 'schemes.mine:Mine.limits'; did you mean 'limit'\?"):
        make_plan("paper", overrides=["schemes.mine:Mine.limits=3"], schemes=["mine:Mine"])


def test_a_hyperparameter_without_a_type_is_explained(policy: Path):
    written(policy, "return DeviceAction(started=view.q, offload=0.0 * view.q)", "limit = 3.0\n")
    with pytest.raises(InputError, match=r"'schemes.mine:Mine.limit' .* has no type; write `limit: float = 3.0`"):
        make_plan("paper", overrides=["schemes.mine:Mine.limit=2"], schemes=["mine:Mine"])


@pytest.mark.parametrize("scenario", ["paper", "ocr"])  # any fraction can be offloaded, or that of a cut
@pytest.mark.parametrize("part", ["started", "offload"])
def test_nan_is_said_with_its_block_and_class(policy: Path, scenario: str, part: str):
    """The logarithm of a negative number: in the first block already."""
    actions = {"started": "view.q", "offload": "0.0 * view.q", part: "jnp.log(view.q - 1e3)"}
    written(policy, f"return DeviceAction(started={actions['started']}, offload={actions['offload']})")
    data = compare(scenario, overrides={"devices": 2}, schemes=["mine:Mine"], blocks=10, seeds=1, bound=False)
    assert data["status"].values.tolist() == ["invalid"]
    assert data["reason"].values.tolist() == [
        "the policy's action is NaN in block 0; look for 0/0, log and sqrt in Mine.act"
    ]
