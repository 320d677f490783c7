"""Trained controllers that are kept and go on as if nothing had happened, and files that are none."""

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from partway.cli.main import main
from partway.errors import InputError
from partway.experiments import checkpoint as keep
from partway.experiments.comparison import Plan, make_plan, play
from partway.pytree import cast_floats
from partway.simulation.rollout import Run
from partway.system.exogenous import gains
from partway.system.placement import sample_placement
from partway.system.world import World, build

BLOCKS = 50


def quiet(name: str, blocks: int) -> None:
    """No progress is shown."""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def planned(scheme: str, blocks: int = BLOCKS, *more: str, **how: Any) -> Plan:
    overrides = ["devices=3", *more]
    return make_plan("paper", **({"overrides": overrides, "schemes": [scheme], "blocks": blocks, "seeds": 2} | how))


def world_of(plan: Plan) -> World:
    return build(plan.scenario, sample_placement(plan.scenario))


def saved(plan: Plan, path: Path, before: keep.Kept | None = None) -> Run:
    """Play a plan, from where `before` ends, and keep it."""
    played = keep.proceed(before, plan, plan.schemes[0], world_of(plan), quiet, True)
    keep.save(path, plan, played, before.header.blocks if before else 0)
    return played


def same(one: Any, other: Any) -> bool:
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in pairs)


@pytest.mark.usefixtures("small_calls")
@pytest.mark.parametrize(("scheme", "precision"), [("priced", "float32"), ("priced", "float64"), ("exact", "float32")])
def test_a_run_that_goes_on_is_the_undisturbed_one(folder: Path, scheme: str, precision: str):
    whole = play(planned(scheme, 2 * BLOCKS, precision=precision), scheme, world_of(planned(scheme)), quiet, True)
    half = planned(scheme, precision=precision)
    saved(half, folder / "first.npz")
    kept = keep.read(folder / "first.npz")
    keep.check(kept, half)
    again = saved(half, folder / "second.npz", kept)
    assert same((again.pair, again.loop), (whole.pair, whole.loop))
    assert same((again.sums, again.traces), jax.tree.map(lambda leaf: leaf[:, BLOCKS:], (whole.sums, whole.traces)))
    assert keep.read(folder / "second.npz").header.blocks == 2 * BLOCKS


def test_a_prepared_pair_is_kept_as_it_was_prepared(folder: Path, monkeypatch: pytest.MonkeyPatch):
    plan = planned("constant", 4)
    played = saved(plan, folder / "tuned.npz")
    monkeypatch.setattr("partway.schemes.tune_constant", None)
    pair, _ = keep.resume(keep.read(folder / "tuned.npz"), plan, world_of(plan))
    assert same(pair, played.pair)


def test_what_is_not_said_anew_is_the_files(folder: Path):
    """Also a switch that is no array; a hyperparameter that the scenario sets holds."""
    saved(planned("priced", BLOCKS, "schemes.priced.aim=discounted", "schemes.priced.decay=0.7"), folder / "a.npz")
    plan = planned("priced", BLOCKS, "schemes.priced.least_step=0.5")
    pair, _ = keep.resume(keep.read(folder / "a.npz"), plan, world_of(plan))
    device: Any = pair.device
    assert device.criterion == "discounted"
    np.testing.assert_allclose(device.decay, 0.7)
    np.testing.assert_allclose(device.min_step, 0.5)


def test_tables_are_carried_into_a_changed_world(folder: Path):
    played = saved(planned("priced"), folder / "a.npz")
    busier = planned("priced", BLOCKS, "device.arrival_prob=0.6", "radio.noise_dbw=-140")
    world = world_of(busier)
    _, loop = keep.resume(keep.read(folder / "a.npz"), busier, world)
    assert same((loop.device_state, loop.server_state), (played.loop.device_state, played.loop.server_state))
    assert same(loop.state.q, played.loop.state.q)
    expected = [gains(cast_floats(world, "float32"), seed, BLOCKS) for seed in (0, 1)]
    np.testing.assert_allclose(loop.state.gain, expected, rtol=1e-6)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("kept") / "a.npz"
    saved(planned("priced"), path)
    return path


WRONG: dict[str, tuple[Callable[[], Plan], str]] = {
    "scheme": (lambda: planned("exact"), "--schemes exact: --load .* was trained with priced"),
    "server": (lambda: planned("priced", server="exact"), "--server exact: .* trained with its own"),
    "precision": (lambda: planned("priced", precision="float64"), "--precision float64: .* trained with float32"),
    "seeds": (lambda: planned("priced", seeds=3), "--seeds: 3 given, .* trained on 2"),
    "devices": (lambda: planned("priced", BLOCKS, "devices=4"), "devices = 4: .* trained with 3 devices"),
}


@pytest.mark.parametrize("case", WRONG)
def test_another_plan_is_refused(trained: Path, case: str):
    plan, message = WRONG[case]
    with pytest.raises(InputError, match=message):
        keep.check(keep.read(trained), plan())


@pytest.mark.parametrize("setting", ["broadcast_lag=1", "slots=4", "schemes.priced.states=16"])
def test_other_shapes_are_refused(trained: Path, setting: str):
    plan = planned("priced", BLOCKS, setting)
    kept = keep.read(trained)
    keep.check(kept, plan)
    with pytest.raises(InputError, match=r"--load .* is float32\[.*, here it must be float32\["):
        keep.resume(kept, plan, world_of(plan))


def rewritten(path: Path, target: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    with np.load(path) as file:
        arrays = dict(file)
    change(arrays)
    with target.open("wb") as file:
        np.savez(file, **arrays)
    return target


def test_a_file_that_lacks_an_array_is_refused(folder: Path, trained: Path):
    broken = rewritten(trained, folder / "b.npz", lambda arrays: arrays.pop("['loop'].state.y"))
    plan = planned("priced")
    with pytest.raises(InputError, match=r"\['loop'\].state.y is missing in the file"):
        keep.resume(keep.read(broken), plan, world_of(plan))


def test_what_is_no_such_file_is_refused(folder: Path, trained: Path):
    whole = trained.read_bytes()
    (folder / "cut.npz").write_bytes(whole[: len(whole) // 2])
    (folder / "text.npz").write_text("no")
    np.savez(folder / "other.npz", a=np.zeros(3))
    np.savez(folder / "pickled.npz", allow_pickle=True, header=np.array([{}], dtype=object))
    rewritten(trained, folder / "header.npz", lambda arrays: arrays.update(header=np.array('{"format": 2}')))
    for name in ("cut", "text", "other", "pickled", "header"):
        with pytest.raises(InputError, match=f"--load '.*{name}.npz': holds no trained controllers"):
            keep.read(folder / f"{name}.npz")
    with pytest.raises(InputError, match="cannot be read"):
        keep.read(folder / "missing.npz")


def call(*arguments: str) -> tuple[int, str, str]:
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = main(arguments)
    return code, out.getvalue(), err.getvalue()


def test_save_and_load_on_the_command_line(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("partway.layout.BLOCKS_PER_CALL", 10)
    tiny = ("--set", "devices=2", "--seeds", "2", "--blocks")
    run = ("run", "--schemes", "local")
    assert call(*run, *tiny, "10", "--save", "a.npz")[0] == 0
    code, out, err = call("run", "--load", "a.npz", "--blocks", "10", "--save", "b.npz", "--json", "-")
    assert code == 0
    assert "Goes on with local after block 10." in err
    assert json.loads(out)["schemes"][0]["name"] == "local"
    assert call(*run, *tiny, "20", "--save", "c.npz")[0] == 0
    with np.load("b.npz") as gone_on, np.load("c.npz") as whole:
        assert {name: gone_on[name].tobytes() for name in gone_on} == {name: whole[name].tobytes() for name in whole}
    for arguments, why in (
        (("--load", "a.npz", "--save", "b.npz"), "exists already; add --overwrite"),
        (("--load", "missing.npz"), "cannot be read"),
        (("--load", "a.npz", "--out", "o", "--save", "o/s.npz"), "is taken by --out or --json"),
        (("--load", "a.npz", "--schemes", "exact"), "was trained with local"),
    ):
        code, out, err = call("run", *arguments, "--blocks", "10")
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert why in err
    assert sorted(path.name for path in folder.iterdir() if path.is_file()) == ["a.npz", "b.npz", "c.npz"]


def test_a_scheme_that_cannot_play_leaves_no_file(folder: Path):
    code, _, err = call("run", "--schemes", "priced", "--set", "queue=as_printed", "--blocks", "10", "--save", "a.npz")
    assert code == 2
    assert "--save a.npz: priced learned nothing" in err
    assert not (folder / "a.npz").exists()
