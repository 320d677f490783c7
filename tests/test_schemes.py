"""The table of schemes: what it declares, hyperparameters and their limits, schemes from outside."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_cli import refused

from partway.errors import InputError
from partway.experiments.plan import make_plan
from partway.experiments.sweep.plan import sweep_plan
from partway.scenario.loading import load
from partway.schemes import SCHEMES, check_hyperparameters, find_scheme, hyperparameters, pair_for, stream_of

TABLE_WITHOUT_JAX = """
import json, sys
from partway.schemes import SCHEMES
table = {name: [scheme.about, scheme.signalling()] for name, scheme in SCHEMES.items()}
print(json.dumps([table, sorted({"jax", "jaxlib", "partway.controllers"} & set(sys.modules))]))
"""


def test_the_table_is_read_without_jax():
    """Names, descriptions and signalling of all rows, in a process of its own."""
    result = subprocess.run([sys.executable, "-c", TABLE_WITHOUT_JAX], capture_output=True, text=True, check=True)
    table, imported = json.loads(result.stdout)
    assert imported == []
    assert table == {name: [scheme.about, scheme.signalling()] for name, scheme in SCHEMES.items()}


@pytest.mark.parametrize("name", SCHEMES)
def test_a_row_declares_the_signalling_of_its_controllers(name: str):
    """Up: the devices' queues, if the server uses them. Down: the fields of the broadcast that a device uses."""
    scheme = SCHEMES[name]
    uses = {"up": int(scheme.server.sees_queues), "down": len(scheme.device.uses_broadcast)}
    assert scheme.signalling() == uses


def test_the_label_of_random_numbers_is_the_name_except_for_two_renamed_schemes():
    """A label must never change: results made with it could not be reproduced."""
    renamed = {"parametric": "exact", "parametric-printed": "printed"}
    assert {name: stream_of(name) for name in SCHEMES} == dict(zip(SCHEMES, SCHEMES, strict=True)) | renamed


@pytest.mark.parametrize("name", SCHEMES)
def test_every_number_or_word_of_a_scheme_has_limits(name: str):
    """Otherwise a scenario could ask for minus one features."""
    scheme = SCHEMES[name]
    limits = {**scheme.server.limits, **scheme.device.limits}
    settable = {field for field, value in hyperparameters(name).items() if not isinstance(value, bool)}
    assert settable <= set(limits)


@pytest.mark.parametrize(
    ("scheme", "given", "expected"),
    [
        ("parametric", "features=-1", "a whole number from 1 to 10000"),
        ("parametric", "features=2.0", "a whole number from 1 to 10000"),
        ("parametric", "gradient=foo", "'exact' or 'printed'"),
        ("parametric", "stop=1", "true or false"),
        ("binary", "explore=7", "a number from 0 to 1"),
        ("constant", "offload='half'", "a number from 0 to 1"),
    ],
)
def test_a_bad_hyperparameter_is_named_with_its_range(scheme: str, given: str, expected: str):
    field, _, value = given.partition("=")
    with pytest.raises(InputError) as error:
        check_hyperparameters(load("paper", [f"schemes.{scheme}.{given}"]))
    shown = "'foo'" if value == "foo" else value
    assert str(error.value) == f"schemes.{scheme}.{field} must be {expected}, got {shown}"


def test_a_mistyped_hyperparameter_suggests_the_nearest():
    with pytest.raises(InputError, match=r"'schemes\.parametric\.stepp'; did you mean 'step'"):
        check_hyperparameters(load("paper", ["schemes.parametric.stepp=1"]))


def test_a_hyperparameter_reaches_both_controllers():
    scenario = load("paper", ["schemes.parametric.step=1", "schemes.parametric.start_rate=0.25"])
    pair = pair_for("parametric", scenario)
    assert (pair.device.step, pair.server.step, pair.server.start_rate) == (1.0, 1.0, 0.25)


def test_the_server_can_be_that_of_another_scheme():
    assert pair_for("local", load("paper"), "constant").server == SCHEMES["constant"].server


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("parametrc", "did you mean 'parametric'"),
        ("os:path", "expected a Scheme"),
        ("no.such:thing", "ModuleNotFoundError"),
    ],
)
def test_a_name_that_is_no_scheme_is_refused_with_the_reason(name: str, why: str):
    with pytest.raises(InputError, match=why):
        find_scheme(name)


# Hyperparameters of schemes that do not run


SET: dict[str, Callable[[Any], object]] = {
    "compare": lambda overrides: make_plan("paper", schemes=["local", "random"], overrides=overrides),
    "sweep": lambda overrides: sweep_plan("paper", ["devices=2"], schemes=["local", "random"], overrides=overrides),
}


@pytest.mark.parametrize("way", SET)
@pytest.mark.parametrize(
    "overrides",
    [["schemes.priced.decay=0.5"], {"schemes.priced": {"decay": 0.5}}, {"schemes": {"priced": {"decay": 0.5}}}],
)
def test_what_is_set_for_a_scheme_that_does_not_run_is_refused(way: str, overrides: Any):
    """In one line, with what does run."""
    message = "--set schemes.priced: does nothing, because 'priced' does not run; what runs is local, random"
    with pytest.raises(InputError, match=f"^{message}$"):
        SET[way](overrides)


def test_a_scheme_that_gives_only_its_server_has_no_hyperparameters_of_its_own():
    """`pair_for` reads those of the scheme that runs, for both parties."""
    with pytest.raises(InputError, match=r"schemes.priced: does nothing, .* what runs is random$"):
        make_plan("paper", schemes=["random"], server="priced", overrides=["schemes.priced.decay=0.5"])
    plan = make_plan("paper", schemes=["random"], server="priced", overrides=["schemes.random.decay=0.5"])
    assert pair_for("random", plan.scenario, "priced").server.decay == 0.5


def test_a_file_may_have_tables_for_schemes_that_do_not_run():
    tables = {"schemes": {"priced": {"decay": 0.5}}}
    assert make_plan(tables, schemes=["local"]).scenario.schemes == tables["schemes"]
    assert make_plan(load(tables), schemes=["local"], overrides=["devices=2"]).scenario.schemes == tables["schemes"]


@pytest.mark.parametrize("command", ["bound", "theorem1", "cut alexnet --one-task"])
def test_commands_with_schemes_of_their_own_refuse_others(command: str, user_folder: Path):
    words = command.split()
    assert "--set schemes.myopic: does nothing, because 'myopic'" in refused(*words, "--set", "schemes.myopic.x=1")
    assert "no scheme 'prised'; did you mean 'priced'?" in refused(*words, "--set", "schemes.prised.decay=1")


# Files import no code

EVIL = "from pathlib import Path\nfrom partway import SCHEMES\nPath('was-imported').touch()\nX = SCHEMES['local']\n"


@pytest.fixture
def evil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a module that leaves a file when it is imported, and a scenario that names it; the file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "evil", raising=False)
    (tmp_path / "evil.py").write_text(EVIL)
    (tmp_path / "mine.toml").write_text('[schemes."evil:X"]\n')
    return tmp_path / "was-imported"


def test_a_scenario_imports_no_module(evil: Path):
    """Not for its own schemes, the server of all, or a point of a sweep."""
    for attempt in (
        lambda: make_plan("mine.toml", schemes=["local"]),
        lambda: sweep_plan("mine.toml", {"devices": [2, 3]}, schemes=["local"]),
        lambda: make_plan({"schemes": {"evil:X": {}}}, schemes=["local"], server="constant"),
        lambda: make_plan("paper", schemes=["local"], overrides=["schemes.evil:X.anything=1"]),
    ):
        with pytest.raises(
            InputError, match=r"schemes\.evil:X: a scenario imports no code; name this scheme with --schemes"
        ):
            attempt()
    assert not evil.exists()


@pytest.mark.parametrize(
    "how",
    [
        {"schemes": ["evil:X"]},
        {"schemes": ["local"], "server": "evil:X"},
    ],
)
def test_a_module_that_a_flag_names_is_imported(how: dict[str, Any], evil: Path):
    make_plan("mine.toml", **how)
    assert evil.exists()


def test_a_sweep_over_a_scenario_with_a_table_for_its_own_scheme(evil: Path):
    plan = sweep_plan("mine.toml", {"devices": [2, 3]}, schemes=["local", "evil:X"], blocks=10, seeds=1)
    assert [cell.key is None for cell in plan.cells] == [False] * 4
