"""Quantities with units: what is understood, what is refused in one line, and how numbers are written."""

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from partway.errors import InputError
from partway.units import (
    BIT_ENERGY,
    DEADLINE,
    DOWN,
    FREQUENCY,
    POWER,
    RATE,
    SIZE,
    TIME,
    UP,
    WORK_RATE,
    Kind,
    parsed,
    quantity,
)


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("20Mbit/s", RATE, 20e6),
        ("20 Mbps", RATE, 20e6),
        ("20mbps", RATE, 20e6),  # a small b is a bit, whatever the prefix
        ("5MB/s", RATE, 40e6),
        ("5 MBps", RATE, 40e6),
        ("2.5 gbit/s", RATE, 2.5e9),
        ("1e3kbit/s", RATE, 1e6),
        ("64 Kibit/s", RATE, 65536),
        ("1MiB/s", RATE, 8 * 2**20),
        (".5 Gb/s", RATE, 5e8),
        ("9600 bit/s", RATE, 9600),
        ("10ms", TIME, 0.01),
        (" 0.5 s ", TIME, 0.5),
        ("0s", TIME, 0.0),
        ("250us", TIME, 250e-6),
        ("250 µs", TIME, 250e-6),
        ("2min", TIME, 120.0),
        ("100 msec", TIME, 0.1),
        ("1.5 seconds", TIME, 1.5),
        ("20 Mbit/sec", RATE, 20e6),
        ("5 Mbytes/s", RATE, 40e6),
        ("600MHz", FREQUENCY, 6e8),
        ("2 ghz", FREQUENCY, 2e9),
        ("8GMAC/s", WORK_RATE, 8e9),
        ("16 GFLOPS", WORK_RATE, 8e9),  # a multiply-accumulate is two operations
        ("26TOPS", WORK_RATE, 13e12),
        ("200mW", POWER, 0.2),
        ("3W", POWER, 3.0),
        ("50nJ/bit", BIT_ENERGY, 50e-9),
        ("400 nJ/B", BIT_ENERGY, 50e-9),
        ("20 mbps", RATE, 20e6),
        ("0", TIME, 0.0),
        ("60kbit", SIZE, 60e3),
        ("7.5 kB", SIZE, 60e3),
        ("6e4", SIZE, 60e3),
    ],
)
def test_what_people_write(text: str, kind: Kind, value: float):
    assert parsed("--x", text, kind) == pytest.approx(value, rel=1e-15)


@pytest.mark.parametrize(
    ("text", "kind", "reason"),
    [
        ("20", RATE, "--x needs a unit, such as 20Mbit/s or 5MB/s, got '20'"),
        ("fast", RATE, "--x must be a number and a unit, such as 20Mbit/s or 5MB/s, got 'fast'"),
        ("nan", TIME, "--x must be a number and a unit, such as 10ms or 0.5s, got 'nan'"),
        ("20 furlong", RATE, "--x '20 furlong': unknown unit 'furlong'; write it like 20Mbit/s or 5MB/s"),
        ("20MBPS", RATE, "--x '20MBPS': write MBps or Mbps, as B is a byte and b a bit"),
        ("0 Mbit/s", RATE, "--x must be from 1 to 1e15 bit/s, got '0 Mbit/s'"),
        ("-1Mbit/s", RATE, "--x must be from 1 to 1e15 bit/s, got '-1Mbit/s'"),
        ("1e999Mbit/s", RATE, "--x must be from 1 to 1e15 bit/s, got '1e999Mbit/s'"),
        ("20Mb", RATE, "--x '20Mb' is not a rate; write 20Mb/s"),
        ("0", RATE, "--x must be from 1 to 1e15 bit/s, got '0'"),
        ("0", DEADLINE, "--x must be from 1e-12 to 1000000000 s, got '0'"),
        ("0 furlong", TIME, "--x '0 furlong': unknown unit 'furlong'; write it like 10ms or 0.5s"),
        ("60kb/s", SIZE, "--x '60kb/s': unknown unit 'kb/s'; write it like 60kbit or 7.5kB"),
        ("0.5", SIZE, "--x must be from 1 to 9.00719925474e15 bit, got '0.5'"),
        ("-1ms", TIME, "--x must be 0 or from 1e-12 to 1000000000 s, got '-1ms'"),
        ("1MW", POWER, "--x '1MW': unknown unit 'MW'; write it like 0.8W or 200mW"),  # not a milliwatt
        ("10 MS", TIME, "--x '10 MS': unknown unit 'MS'; write it like 10ms or 0.5s"),
        ("20 Mbit/s up", RATE, "--x '20 Mbit/s up': unknown unit 'Mbit/s up'; write it like 20Mbit/s or 5MB/s"),
        ([1], RATE, "--x must be a number or a text such as 20Mbit/s or 5MB/s, got an array"),
        (True, TIME, "--x must be a number or a text such as 10ms or 0.5s, got true"),
        (math.nan, TIME, "--x must be 0 or from 1e-12 to 1000000000 s, got nan"),
        (
            np.array([1e6, 2e6]),
            RATE,
            "--x must be a number or a text such as 20Mbit/s or 5MB/s, got [1000000. 2000000.]",
        ),
        (np.True_, RATE, "--x must be a number or a text such as 20Mbit/s or 5MB/s, got True"),
        (10**400, RATE, "--x must be from 1 to 1e15 bit/s, got 1e400 or so"),
        (Fraction(10**400), RATE, f"--x must be from 1 to 1e15 bit/s, got 1{'0' * 56}..."),
        (Decimal("sNaN"), RATE, "--x must be a number or a text such as 20Mbit/s or 5MB/s, got sNaN"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(text: object, kind: Kind, reason: str):
    with pytest.raises(InputError) as error:
        parsed("--x", text, kind)
    assert str(error.value) == reason


def test_numbers_are_in_si_units():
    assert parsed("rate", 20e6, RATE) == 20e6
    assert parsed("rtt", 0, TIME) == 0


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0212756, "s", "21.28 ms"),
        (0.1364731, "s", "136.5 ms"),
        (1.25e-9, "s", "1.25 ns"),
        (125.0, "s", "125 s"),
        (4321.0, "s", "4321 s"),
        (0.0, "s", "0 s"),
        (20e6, "bit/s", "20 Mbit/s"),
        (2e9, "Hz", "2 GHz"),
        (999_960.0, "Hz", "1 MHz"),
        (1e17, "bit/s", "100 Pbit/s"),
        (3e-13, "s", "300 fs"),
        (2e-16, "J/bit", "200 aJ/bit"),
        (1_204_000.0, "s", "334.4 h"),
        (math.inf, "s", "-"),
        (math.nan, "W", "-"),
    ],
)
def test_how_quantities_are_written(value: float, unit: str, text: str):
    assert quantity(value, unit, 4) == text


@pytest.mark.parametrize(
    ("value", "down", "up"),
    [
        (17.4231e6, "17.4 Mbit/s", "17.5 Mbit/s"),
        (17.4e6, "17.4 Mbit/s", "17.4 Mbit/s"),
        (17.4e6 * (1 + 3e-16), "17.4 Mbit/s", "17.4 Mbit/s"),  # an error of float64 is no reason for another digit
        (17.4e6 * (1 - 3e-16), "17.4 Mbit/s", "17.4 Mbit/s"),
        (999.9e3, "999 kbit/s", "1 Mbit/s"),
        (0.0, "0 bit/s", "0 bit/s"),
        (math.inf, "-", "-"),
    ],
)
def test_limits_are_rounded_to_the_side_on_which_they_hold(value: float, down: str, up: str):
    assert (quantity(value, "bit/s", rounding=DOWN), quantity(value, "bit/s", rounding=UP)) == (down, up)


@given(st.floats(1e-9, 9.9e14))
def test_what_is_written_is_read_again(value: float):
    """To the four digits shown."""
    if value >= 1:
        assert parsed("--x", quantity(value, "bit/s", 4), RATE) == pytest.approx(value, rel=6e-4)
    if value < 1e8:
        assert parsed("--x", quantity(value, "s", 4), TIME) == pytest.approx(value, rel=6e-4)


@pytest.mark.parametrize("kind", [RATE, TIME, FREQUENCY, WORK_RATE, POWER, BIT_ENERGY, SIZE])
def test_every_spelling_of_a_unit_and_every_example_is_read(kind: Kind):
    for unit, size in kind.units.items():
        number = kind.least / size * 2
        assert parsed("--x", f"{number!r} {unit}", kind) == pytest.approx(kind.least * 2)
    for example in kind.example.split(" (")[0].split(" or "):
        assert parsed("--x", example, kind) > 0
