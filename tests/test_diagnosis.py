"""The first mistakes of a policy's author are answered with one line: class, line and remedy."""

import textwrap
from pathlib import Path

import pytest

from partway import InputError
from partway.experiments.comparison import compare, make_plan

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
    "shape": (
        "return DeviceAction(started=view.q, offload=view.arrivals)",
        r"Mine.act: offload must be one number, not an array of shape \(5,\)",
    ),
    "no action": ("return view.q, 0.5", r"Mine.act: must return a DeviceAction, not tuple"),
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


def test_a_controller_without_act_is_refused(policy: Path):
    policy.write_text("from partway import DeviceController\n\n\nclass Mine(DeviceController):\n    pass\n")
    with pytest.raises(InputError, match="a controller needs a method `act`"):
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


def test_nan_is_said_with_its_block(policy: Path):
    """The logarithm of a negative queue: in the first block already."""
    written(policy, "return DeviceAction(started=view.q, offload=jnp.log(view.q - 1.0))")
    data = compare({"devices": 2}, schemes=["mine:Mine"], blocks=10, seeds=1, bound=False)
    assert data["status"].values.tolist() == ["invalid"]
    assert data["reason"].values.tolist() == ["the policy's action is NaN in block 0"]
