"""A scheme that fails while it runs: the others keep their results, and the command says so in one line."""

import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from sweep_toys import Here
from test_cli import call

import partway
from partway.controllers.baselines import Local
from partway.errors import InputError
from partway.experiments import comparison
from partway.experiments.comparison import compare
from partway.experiments.failures import cause, check_complete
from partway.experiments.summary import summarise
from partway.schemes import SCHEMES, Scheme
from partway.simulation.rollout import Run
from partway.workers import CALLBACK_LOGGER, silence_jax

LATE = '''
import jax, jax.numpy as jnp, numpy as np
from partway import DeviceAction, DeviceController


def row(q):
    if np.max(q) > 2:
        raise ValueError("no row\\nfor this queue")
    return np.zeros_like(q)


class Late(DeviceController):
    """Calls back to Python, which fails as soon as three tasks wait."""

    limit: float = 1.0

    def act(self, state, device, view, key):
        offload = jax.pure_callback(row, jax.ShapeDtypeStruct((), view.q.dtype), view.q, vmap_method="sequential")
        return DeviceAction(started=0.0 * view.q, offload=offload)


class Nan(DeviceController):
    def act(self, state, device, view, key):
        return DeviceAction(started=view.q, offload=jnp.log(view.q - 1e3))
'''
CAUSE = "line 8 of late.py: ValueError: no row for this queue"
TINY = ("--set", "devices=2", "weights.server_queue=0", "--blocks", "20", "--seeds", "2")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where compiled programs are remembered from one test to the next."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def policy(user_folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setenv("COLUMNS", "100")
    (user_folder / "late.py").write_text(LATE)


def test_the_other_schemes_keep_their_results():
    overrides = {"devices": 2, "weights.server_queue": 0.0}
    data = compare("paper", overrides=overrides, schemes=["local", "late:Late", "random"], blocks=20, seeds=2)
    assert data["status"].values.tolist() == ["ok", "failed", "ok"]
    assert data["reason"].values.tolist() == ["", CAUSE, ""]
    alone = compare("paper", overrides=overrides, schemes=["local"], blocks=20, seeds=2)
    np.testing.assert_array_equal(data["cost"].sel(scheme="local"), alone["cost"].sel(scheme="local"))
    assert np.isnan(data["cost"].sel(scheme="late:Late")).all()
    late = summarise(data)[1]
    assert (late.status, late.reason, late.gap) == ("failed", CAUSE, None)


def test_the_command_prints_and_writes_the_others_and_then_fails(user_folder: Path):
    code, out, err = call("compare", *TINY, "--schemes", "local", "late:Late", "--out", "results", "--json", "r.json")
    assert code == 2
    assert err.splitlines()[-1] == f"partway: 1 of 2 schemes failed: late:Late: {CAUSE}"
    assert f"late:Late: {CAUSE}" in " ".join(out.split())
    document = json.loads((user_folder / "r.json").read_text())
    costs = {one["name"]: one["cost_per_block"]["mean"] for one in document["schemes"]}
    assert costs["local"] > 0
    assert costs["late:Late"] is None
    assert (user_folder / "results" / "results.nc").is_file()


def test_a_scheme_alone_that_fails_is_one_line_and_nothing_is_written(user_folder: Path):
    before = sorted(path.name for path in user_folder.iterdir())
    code, out, err = call("run", *TINY, "--schemes", "late:Late", "--out", "results")
    assert (code, out) == (2, "")
    assert err.splitlines()[-1] == f"partway: scheme 'late:Late' failed: {CAUSE}"
    assert [path.name for path in sorted(user_folder.iterdir()) if path.name != "__pycache__"] == before
    with pytest.raises(InputError) as caught:  # in Python with the error that it was
        compare("paper", overrides={"devices": 2}, schemes=["late:Late"], blocks=20, seeds=1, bound=False)
    assert isinstance(caught.value.__cause__, jax.errors.JaxRuntimeError)


def test_of_an_error_in_a_callback_jax_logs_no_traceback(caplog: pytest.LogCaptureFixture):
    """It does so from a thread of XLA, before anybody can say the error in one line."""
    logger = logging.getLogger(CALLBACK_LOGGER)

    def fail() -> None:
        call_back = jax.jit(lambda x: jax.pure_callback(lambda q: 1 / 0, x, x))
        with pytest.raises(jax.errors.JaxRuntimeError, match="ZeroDivisionError"):
            jax.block_until_ready(call_back(np.float32(1)))

    level = logger.level
    try:
        fail()
        assert [record.name for record in caplog.records] == [CALLBACK_LOGGER]
        caplog.clear()
        silence_jax()
        fail()
        assert caplog.records == []
    finally:
        logger.setLevel(level)


def test_numbers_that_are_none_end_with_an_error_after_the_results(user_folder: Path):
    code, out, err = call("run", *TINY, "--schemes", "late:Nan", "--out", "results")
    assert code == 2
    assert err.splitlines()[-1].startswith("partway: 1 of 1 scheme invalid: late:Nan: the policy's action is NaN in")
    assert "invalid" in out
    assert (user_folder / "results" / "results.json").is_file()


def test_a_case_of_a_sweep_says_the_same():
    how: dict[str, Any] = {"overrides": {"weights.server_queue": 0.0}, "blocks": 20, "seeds": 2, "executor": Here()}
    data = partway.sweep("paper", {"devices": [2]}, schemes=["local", "late:Late"], **how)
    assert data["status"].values.tolist() == [["ok", "failed"]]
    assert data["reason"].values.tolist() == [["", CAUSE]]


def broken(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scheme `broken` raises this while it runs."""

    def run(plan: Any, name: str, *how: Any) -> Run:
        if name == "broken":
            raise error
        return kept(plan, name, *how)

    kept = comparison.run_scheme
    monkeypatch.setitem(SCHEMES, "broken", Scheme("broken", Local(), SCHEMES["local"].server))
    monkeypatch.setattr(comparison, "run_scheme", run)


def small(*schemes: str, **how: Any) -> Any:
    return compare({"devices": 2}, schemes=schemes, blocks=20, seeds=1, bound=False, **how)


def test_a_lack_of_memory_loses_one_scheme(monkeypatch: pytest.MonkeyPatch):
    broken(MemoryError("12 GiB"), monkeypatch)
    data = small("local", "broken")
    assert data["reason"].values.tolist() == ["", "out of memory (12 GiB); use fewer devices, seeds or blocks"]
    with pytest.raises(InputError, match=r"^scheme 'broken' failed: out of memory \(12 GiB\)"):
        small("broken")


def test_a_fault_of_ours_is_raised_as_it_is_unless_others_have_results(monkeypatch: pytest.MonkeyPatch):
    broken(ZeroDivisionError("ours"), monkeypatch)
    assert str(small("local", "broken")["reason"].values[1]).endswith("ZeroDivisionError: ours")
    with pytest.raises(ZeroDivisionError, match="ours"):
        small("broken")


@pytest.mark.parametrize("schemes", [("local",), ("local", "random")])
def test_an_error_of_the_caller_is_the_callers(schemes: tuple[str, ...]):
    def stop(name: str, blocks: int) -> None:
        raise LookupError("enough")

    with pytest.raises(LookupError, match="enough"):
        small(*schemes, on_progress=stop)


def raised(fail: Callable[[], Any]) -> BaseException:
    with pytest.raises(BaseException) as caught:  # noqa: PT011  whatever it is
        fail()
    return caught.value


def test_the_cause_names_the_users_line_and_is_one_line():
    here = Path(__file__).name
    assert cause(raised(lambda: 1 / 0)).startswith("line ")
    assert cause(raised(lambda: 1 / 0)).endswith(f" of {here}: ZeroDivisionError: division by zero")
    assert cause(raised(lambda: np.linalg.inv(np.zeros((2, 2))))).endswith(f" of {here}: LinAlgError: Singular matrix")
    assert cause(raised(lambda: sys.exit("done"))).endswith(f" of {here}: SystemExit: done")
    assert cause(raised(lambda: partway.compare("paper", blocks=1))).startswith("--blocks must be")
    assert cause(ValueError("two\nlines " + "x" * 900)).startswith("ValueError: two lines xxx")
    assert len(cause(ValueError("x" * 900))) == 300


def test_a_command_says_what_failed_and_what_is_invalid():
    fine = [("ok", ""), ("unstable", "work piles up"), ("not_applicable", "it cannot")]
    check_complete(fine, "cases")
    with pytest.raises(InputError, match=r"^2 of 6 cases failed: a, and 1 more cause; again; 1 of 6 cases invalid: c$"):
        check_complete([*fine, ("failed", "a"), ("invalid", "c"), ("failed", "b")], "cases", "; again")
    with pytest.raises(InputError, match=r"^2 of 2 cases failed: a$"):
        check_complete([("failed", "a")] * 2, "cases")
