"""Trained controllers that are saved and continued as if the run had never stopped, and files that are refused."""

import contextlib
import io
import json
import os
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from conftest import scheduled

from partway.cli.main import main
from partway.errors import InputError
from partway.experiments import checkpoint
from partway.experiments.comparison import run_scheme
from partway.experiments.plan import Plan, Setting, make_plan, setting_of
from partway.measurement.checkpoint import Checkpoint, read
from partway.pytree import cast_floats
from partway.simulation.rollout import Run
from partway.system.exogenous import gains

BLOCKS = 50


def quiet(blocks: int) -> None:
    """No progress is shown."""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def planned(scheme: str, blocks: int = BLOCKS, *more: str, **how: Any) -> Plan:
    options = {"overrides": ["devices=3", *more], "schemes": [scheme], "blocks": blocks, "seeds": 2, "bound": False}
    return make_plan("paper", **(options | how))


def setting(plan: Plan) -> Setting:
    return setting_of(plan.scenario, plan.bound)


def saved(plan: Plan, path: Path, before: Checkpoint | None = None) -> Run:
    """Run a plan, from where `before` ends, and save it."""
    with scheduled(BLOCKS_PER_CALL=BLOCKS):
        run = checkpoint.continue_scheme(before, plan, plan.schemes[0], setting(plan), quiet, True)
    checkpoint.save(path, plan, run, before.header.blocks if before else 0)
    return run


def same(one: Any, other: Any) -> bool:
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in pairs)


@pytest.mark.parametrize(
    ("scheme", "precision"),
    [
        pytest.param("priced", "float32", marks=pytest.mark.slow),
        ("priced", "float64"),
        ("parametric", "float32"),
    ],
)
def test_a_continued_run_is_the_undisturbed_one(folder: Path, scheme: str, precision: str):
    twice, half = (planned(scheme, blocks, precision=precision) for blocks in (2 * BLOCKS, BLOCKS))
    with scheduled(BLOCKS_PER_CALL=BLOCKS):
        undisturbed = run_scheme(twice, scheme, setting(twice), quiet, True)
    saved(half, folder / "first.npz")
    first = read(folder / "first.npz")
    checkpoint.check(first, half)
    second = saved(half, folder / "second.npz", first)
    later = jax.tree.map(lambda leaf: leaf[:, BLOCKS:], (undisturbed.metrics, undisturbed.traces))
    assert same((second.pair, second.carry), (undisturbed.pair, undisturbed.carry))
    assert same((second.metrics, second.traces), later)
    assert read(folder / "second.npz").header.blocks == 2 * BLOCKS


def test_a_tuned_pair_is_not_tuned_again(folder: Path, monkeypatch: pytest.MonkeyPatch):
    plan = planned("constant", 4)
    run = saved(plan, folder / "tuned.npz")
    monkeypatch.setattr("partway.experiments.preparation.tune_constant", None)
    pair, _ = checkpoint.resume(read(folder / "tuned.npz"), plan, setting(plan))
    assert same(pair, run.pair)


def test_hyperparameters_are_those_of_the_file_unless_the_scenario_sets_them(folder: Path):
    """A switch that is no array as well."""
    saved(
        planned("priced", BLOCKS, "schemes.priced.criterion=discounted", "schemes.priced.decay=0.7"), folder / "a.npz"
    )
    plan = planned("priced", BLOCKS, "schemes.priced.min_step=0.5")
    pair, _ = checkpoint.resume(read(folder / "a.npz"), plan, setting(plan))
    device: Any = pair.device
    assert device.criterion == "discounted"
    np.testing.assert_allclose(device.decay, 0.7)
    np.testing.assert_allclose(device.min_step, 0.5)


def test_tables_are_carried_into_a_changed_world(folder: Path):
    """Queues and states as they are, the gain of the next block drawn anew."""
    run = saved(planned("priced"), folder / "a.npz")
    busier = planned("priced", BLOCKS, "device.arrival_prob=0.6", "radio.noise_dbw=-140")
    _, carry = checkpoint.resume(read(folder / "a.npz"), busier, setting(busier))
    assert same((carry.device_state, carry.server_state), (run.carry.device_state, run.carry.server_state))
    assert same(carry.state.q, run.carry.state.q)
    expected = [gains(cast_floats(setting(busier).world, "float32"), seed, BLOCKS) for seed in (0, 1)]
    np.testing.assert_allclose(carry.state.gain, expected, rtol=1e-6)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trained") / "a.npz"
    saved(planned("priced"), path)
    return path


WRONG: dict[str, tuple[Callable[[], Plan], str]] = {
    "scheme": (lambda: planned("parametric"), "--schemes parametric: --load .* was trained with priced"),
    "server": (lambda: planned("priced", server="parametric"), "--server parametric: .* trained with its own"),
    "precision": (lambda: planned("priced", precision="float64"), "--precision float64: .* trained with float32"),
    "seeds": (lambda: planned("priced", seeds=3), "--seeds: got 3, but .* was trained on 2"),
    "devices": (lambda: planned("priced", BLOCKS, "devices=4"), "devices = 4: .* trained with 3 devices"),
}


@pytest.mark.parametrize("case", WRONG)
def test_another_plan_is_refused(trained: Path, case: str):
    plan, message = WRONG[case]
    with pytest.raises(InputError, match=message):
        checkpoint.check(read(trained), plan())


@pytest.mark.parametrize("change", ["broadcast_delay_blocks=1", "slots_per_block=4", "schemes.priced.states=16"])
def test_other_shapes_are_refused(trained: Path, change: str):
    plan, start = planned("priced", BLOCKS, change), read(trained)
    checkpoint.check(start, plan)
    with pytest.raises(InputError, match=r"--load .* is float32\[.* and must be float32\[.* here"):
        checkpoint.resume(start, plan, setting(plan))


def rewritten(path: Path, target: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    with np.load(path) as file:
        arrays = dict(file)
    change(arrays)
    with target.open("wb") as file:
        np.savez(file, **arrays)
    return target


def test_a_file_that_lacks_an_array_is_refused(folder: Path, trained: Path):
    broken = rewritten(trained, folder / "b.npz", lambda arrays: arrays.pop("['carry'].state.backlog"))
    plan = planned("priced")
    with pytest.raises(InputError, match=r"\['carry'\].state.backlog is missing in the file"):
        checkpoint.resume(read(broken), plan, setting(plan))


def test_a_file_that_is_no_checkpoint_is_refused(folder: Path, trained: Path):
    content = trained.read_bytes()
    (folder / "cut.npz").write_bytes(content[: len(content) // 2])
    (folder / "text.npz").write_text("no")
    np.savez(folder / "other.npz", a=np.zeros(3))
    np.savez(folder / "pickled.npz", allow_pickle=True, header=np.array([{}], dtype=object))
    rewritten(trained, folder / "header.npz", lambda arrays: arrays.update(header=np.array('{"schema_version": 2}')))
    for name in ("cut", "text", "other", "pickled", "header"):
        with pytest.raises(InputError, match=f"--load '.*{name}.npz': holds no trained controllers"):
            read(folder / f"{name}.npz")
    with pytest.raises(InputError, match="cannot be read"):
        read(folder / "missing.npz")


def flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_one_flipped_bit_anywhere_is_refused_or_harmless(folder: Path, trained: Path):
    """What zip checks by a sum, or a byte that says nothing, such as the time."""
    content, path = trained.read_bytes(), folder / "b.npz"
    intact = read(trained)
    arrays = {name: intact.array(name).tobytes() for name in intact.kinds}
    refusals = list[str]()
    for bit in np.random.default_rng(17).choice(8 * len(content), 200, replace=False):
        path.write_bytes(flipped(content, int(bit)))
        try:
            damaged = read(path)
            assert damaged.header == intact.header
            assert {name: damaged.array(name).tobytes() for name in damaged.kinds} == arrays
        except InputError as error:
            refusals.append(str(error))
    assert len(refusals) > 100
    assert all("b.npz': holds no trained controllers (" in refusal for refusal in refusals)
    assert any("Error -3 while decompressing data" in refusal or "Bad CRC-32" in refusal for refusal in refusals)


def test_a_file_that_was_cut_anywhere_is_refused(folder: Path, trained: Path):
    content, path = trained.read_bytes(), folder / "b.npz"
    for length in np.linspace(0, len(content) - 1, 50, dtype=int):
        path.write_bytes(content[:length])
        with pytest.raises(InputError, match="holds no trained controllers"):
            read(path)


def test_an_array_is_not_decompressed_before_its_shape_is_known_to_be_right(folder: Path, trained: Path):
    """A zip bomb: 16 GB of zeros, in a member that claims their true size, behind the header of an array."""
    name, entry = "['carry'].state.backlog", io.BytesIO()
    np.lib.format.write_array_header_1_0(entry, {"descr": "<f4", "fortran_order": False, "shape": (2**32,)})
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = compressor.compress(entry.getvalue() + bytes(2**20)) + compressor.flush()
    path = rewritten(trained, folder / "b.npz", lambda arrays: arrays.pop(name))
    with zipfile.ZipFile(path, "a") as archive:
        info = zipfile.ZipInfo(f"{name}.npy")
        archive.writestr(info, packed)
        info.compress_type, info.file_size = zipfile.ZIP_DEFLATED, 2**34
    checkpoint_read, plan = read(path), planned("priced")
    assert checkpoint_read.kinds[name][0] == (2**32,)
    with pytest.raises(InputError, match=r"backlog is float32\[4294967296\] and must be float32\[2\] here"):
        checkpoint.resume(checkpoint_read, plan, setting(plan))


def test_a_header_without_end_is_refused(folder: Path, trained: Path):
    path = rewritten(trained, folder / "b.npz", lambda arrays: arrays.update(header=np.array(" " * 5_000_000)))
    with pytest.raises(InputError, match="holds no trained controllers"):
        read(path)


def test_what_has_no_end_is_refused(folder: Path):
    os.mkfifo(folder / "pipe")
    for path in ("/dev/zero", folder / "pipe", folder):
        with pytest.raises(InputError, match=r"holds no trained controllers|cannot be read"):
            read(path)


@pytest.mark.parametrize(
    ("switches", "message"),
    [
        ({"device_states": 10**9}, r"schemes\.priced\.device_states must be a whole number from"),
        ({"device_states": "many"}, r"schemes\.priced\.device_states must be a whole number"),
        ({"unheard": 1}, "has other hyperparameters than priced has here"),
    ],
)
def test_hyperparameters_of_a_file_are_checked_as_those_of_a_scenario(
    folder: Path, trained: Path, switches: dict[str, Any], message: str
):
    def change(arrays: dict[str, Any]) -> None:
        header = json.loads(str(arrays["header"]))
        header["switches"] |= switches
        arrays["header"] = np.array(json.dumps(header))

    path, plan = rewritten(trained, folder / "b.npz", change), planned("priced")
    with pytest.raises(InputError, match=message):
        checkpoint.resume(read(path), plan, setting(plan))


@pytest.mark.parametrize("header", ['{"format": 1}', '{"schema_version": 3}'])
def test_a_file_of_another_version_is_refused_with_the_reason(folder: Path, trained: Path, header: str):
    other = rewritten(trained, folder / "b.npz", lambda arrays: arrays.update(header=np.array(header)))
    with pytest.raises(InputError, match=r"has format [13], this version of Partway reads format 2; train again"):
        read(other)


def call(*arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = main(arguments)
    return code, out.getvalue(), err.getvalue()


def test_save_and_load_on_the_command_line(folder: Path):
    tiny = ("--set", "devices=2", "--seeds", "2", "--blocks")
    run = ("run", "--schemes", "local")
    with scheduled(BLOCKS_PER_CALL=10):
        assert call(*run, *tiny, "10", "--save", "a.npz")[0] == 0
        code, out, err = call("run", "--load", "a.npz", "--blocks", "10", "--save", "b.npz", "--json", "-")
        assert call(*run, *tiny, "20", "--save", "c.npz")[0] == 0
    assert code == 0
    assert "Resuming local after block 10." in err
    assert json.loads(out)["schemes"][0]["name"] == "local"
    with np.load("b.npz") as resumed, np.load("c.npz") as undisturbed:
        assert {name: resumed[name].tobytes() for name in resumed} == {
            name: undisturbed[name].tobytes() for name in undisturbed
        }
    for arguments, why in (
        (("--load", "a.npz", "--save", "b.npz"), "exists already; add --overwrite"),
        (("--load", "missing.npz"), "cannot be read"),
        (("--load", "a.npz", "--out", "o", "--save", "o/s.npz"), "is the file of --json or in --out"),
        (("--load", "a.npz", "--schemes", "parametric"), "was trained with local"),
    ):
        code, out, err = call("run", *arguments, "--blocks", "10")
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert why in err
    assert sorted(path.name for path in folder.iterdir() if path.is_file()) == ["a.npz", "b.npz", "c.npz"]


def test_a_scheme_that_is_not_applicable_leaves_no_file(folder: Path):
    code, _, err = call("run", "--schemes", "priced", "--set", "queue=as_printed", "--blocks", "10", "--save", "a.npz")
    assert code == 2
    assert "--save a.npz: priced has nothing to save" in err
    assert not (folder / "a.npz").exists()


@pytest.mark.parametrize(("field", "flag"), [("scheme", "--schemes"), ("server", "--server")])
def test_a_file_imports_no_code(folder: Path, trained: Path, monkeypatch: pytest.MonkeyPatch, field: str, flag: str):
    """Unless a flag names the module, too."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "evil", raising=False)
    (folder / "evil.py").write_text("from pathlib import Path\nPath('was-imported').touch()\n")

    def change(arrays: dict[str, Any]) -> None:
        header = json.loads(str(arrays["header"]))
        arrays["header"] = np.array(json.dumps(header | {field: "evil:X"}))

    rewritten(trained, folder / "b.npz", change)
    code, _, err = call("run", "--load", "b.npz")
    assert (code, err.count("\n")) == (2, 1)
    assert f"--load 'b.npz': imports no code; add {flag} evil:X to use that controller" in err
    assert not (folder / "was-imported").exists()
    assert "has no attribute 'X'" in call("run", "--load", "b.npz", flag, "evil:X")[2]
    assert (folder / "was-imported").exists()
