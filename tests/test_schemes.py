"""The table of schemes: names, hyperparameters and their limits, schemes from outside."""

import pytest

from partway.errors import InputError
from partway.scenario.loading import load
from partway.schemes import SCHEMES, check_hyperparameters, find_scheme, hyperparameters, pair_for


@pytest.mark.parametrize("name", SCHEMES)
def test_every_number_or_word_of_a_scheme_has_limits(name: str):
    """So that no scenario can ask for minus one features."""
    scheme = SCHEMES[name]
    limits = {**scheme.server.limits, **scheme.device.limits}
    settable = {field for field, value in hyperparameters(name).items() if not isinstance(value, bool)}
    assert settable <= set(limits)


@pytest.mark.parametrize(
    ("override", "allowed"),
    [
        ("schemes.exact.features=-1", "a whole number from 1 to 10000"),
        ("schemes.exact.features=2.0", "a whole number from 1 to 10000"),
        ("schemes.exact.gradient=foo", "'exact' or 'printed'"),
        ("schemes.exact.stop=1", "true or false"),
        ("schemes.binary.explore=7", "a number from 0 to 1"),
        ("schemes.constant.share='half'", "a number from 0 to 1"),
    ],
)
def test_a_bad_hyperparameter_is_named_with_its_range(override: str, allowed: str):
    field, _, value = override.partition("=")
    with pytest.raises(InputError) as error:
        check_hyperparameters(load("paper", [override]))
    assert (
        str(error.value)
        == f"{field} = {value if value[0] in chr(39) + '-0123456789' else repr(value)}: allowed is {allowed}"
    )


def test_a_mistyped_hyperparameter_suggests_the_nearest():
    with pytest.raises(InputError, match=r"'schemes\.exact\.stepp'; did you mean 'step'"):
        check_hyperparameters(load("paper", ["schemes.exact.stepp=1"]))


def test_a_hyperparameter_reaches_both_controllers():
    pair = pair_for("exact", load("paper", ["schemes.exact.step=1", "schemes.exact.start_rate=0.25"]))
    assert (pair.device.step, pair.server.step, pair.server.start_rate) == (1.0, 1.0, 0.25)


def test_the_server_can_be_another_schemes():
    assert pair_for("local", load("paper"), "constant").server == SCHEMES["constant"].server


@pytest.mark.parametrize(
    ("name", "why"),
    [("exat", "did you mean 'exact'"), ("os:path", "expected a Scheme"), ("no.such:thing", "ModuleNotFoundError")],
)
def test_what_is_no_scheme_is_said(name: str, why: str):
    with pytest.raises(InputError, match=why):
        find_scheme(name)
