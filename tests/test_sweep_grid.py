"""The axes of a sweep: values of a SPEC, names of dimensions, points of the grid."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from partway.errors import InputError
from partway.experiments.sweep.axes import Axis, dimensions, parse_axes, parse_values, points
from partway.experiments.variables import OF_SWEEP

numbers = st.floats(1e-6, 1e6).map(lambda value: float(f"{value:.6g}"))


@pytest.mark.parametrize(
    ("spec", "values"),
    [
        ("0.1:0.9:9", (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)),
        ("1e-5:1e-2:4:log", (1e-5, 1e-4, 1e-3, 1e-2)),
        ("1:1000:4:log", (1, 10, 100, 1000)),
        ("10:50:5", (10, 20, 30, 40, 50)),
        ("0:1:3", (0.0, 0.5, 1.0)),
        ("3:1:3", (3, 2, 1)),
        ("4,20,50", (4, 20, 50)),
        ("0.5", (0.5,)),
        ("conserving, as_printed", ("conserving", "as_printed")),
        ("true,false", (True, False)),
        ('["a,b", "c"]', ("a,b", "c")),
        ("[{kind = 'layers', profile = 'resnet50'}]", ({"kind": "layers", "profile": "resnet50"},)),
        ("inf,0.2", (math.inf, 0.2)),
    ],
)
def test_values_worked_by_hand(spec: str, values: tuple[object, ...]):
    parsed = parse_values(spec)
    assert parsed == values
    assert list(map(type, parsed)) == list(map(type, values))


@given(numbers, numbers, st.integers(2, 40), st.booleans())
def test_spaced_values_hold_both_ends_and_keep_their_distance(low: float, high: float, count: int, log: bool):
    values = np.array(parse_values(f"{low!r}:{high!r}:{count}" + ":log" * log), float)
    assert (values[0], values[-1], len(values)) == (low, high, count)
    steps = np.diff(np.log(values) if log else values)
    assert steps == pytest.approx(steps.mean(), rel=1e-6, abs=1e-9 * (abs(low) + abs(high)))


@given(st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=4, unique=True), max_size=4))
def test_points_are_the_product_of_the_axes_last_fastest(values: list[list[int]]):
    axes = parse_axes({f"field{i}": column for i, column in enumerate(values)})
    at = points(axes)
    assert [tuple(point.values()) for point in at] == list(itertools.product(*values))
    assert all(list(point) == [axis.field for axis in axes] for point in at)


@given(st.text(max_size=30))
def test_any_text_is_values_or_an_error(text: str):
    try:
        (axis,) = parse_axes([f"devices={text}"])
    except InputError as refused:
        message = str(refused)
    else:
        message = f"--axis 'devices=': {len(axis.values)}" if axis.values else "an axis without values"
    assert message.startswith(("--axis 'devices=", '--axis "devices='))


def test_axes_from_texts_and_from_a_mapping_are_the_same():
    assert parse_axes(["devices=4,20", "device.arrival_prob=0:1:3"]) == parse_axes(
        {"devices": [4, 20], "device.arrival_prob": np.linspace(0, 1, 3)}
    )
    assert parse_axes({"devices": "4,20"}) == parse_axes("devices=4,20")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["devices"], "expected FIELD=SPEC"),
        (["=1,2"], "expected FIELD=SPEC"),
        (["devices=1:2"], "START:STOP:COUNT"),
        (["devices=1:2:3:lin"], "START:STOP:COUNT"),
        (["devices=1:2:1"], "count must be between 2"),
        (["devices=0:2:3:log"], "ends must be above 0"),
        (["devices=1:inf:3"], "START:STOP:COUNT"),
        (["devices="], "must have 1 to 10000 values"),
        (["devices=[]"], "must have 1 to 10000 values"),
        (["devices=[1,"], "not a TOML array"),
        (["devices=4,4"], "twice"),
        (["devices=4,4.0"], "twice"),
        (["devices=4", "devices=5"], "given twice"),
        (["seeds=1,2"], "--seeds"),
        (["scheme=priced"], "--schemes"),
        ({"devices": 4}, "not iterable"),
        ([f"a{i}=1:100:100" for i in range(3)], "1000000 points"),
    ],
)
def test_what_is_no_axis_is_refused_in_one_line(given: object, message: str):
    with pytest.raises(InputError, match=message) as refused:
        parse_axes(given)  # pyright: ignore[reportArgumentType]
    assert "\n" not in str(refused.value)


def test_dimensions_are_short_where_that_is_clear():
    fields = (
        "device.capacitance",
        "server.capacitance",
        "devices",
        "x.component",
        "schemes.priced.price_gain",
        "x.gap",
    )
    named = dimensions([Axis(field, (1,)) for field in fields], OF_SWEEP)
    assert named == ["device.capacitance", "server.capacitance", "devices", "x.component", "price_gain", "x.gap"]


@pytest.mark.parametrize(
    ("field", "unit"),
    [
        ("device.bandwidth_hz", "Hz"),
        ("radio.noise_dbm_per_hz", "dBm/Hz"),
        ("radio.noise_figure_db", "dB"),
        ("radio.noise_dbw", "dBW"),
        ("radio.pathloss_db_at_1m", "dB"),
        ("radio.shadowing_db", "dB"),
        ("device.tx_power_max_w", "W"),
        ("slot_s", "s"),
        ("weights.server_queue", "1/cycle"),
        ("device.arrival_prob", "1"),
        ("slots_per_block", "slots"),
    ],
)
def test_units_come_from_names(field: str, unit: str):
    assert Axis(field, (1,)).unit() == unit


def test_labels_are_numbers_or_words():
    assert Axis("a", (1, 2)).labels() == [1, 2]
    assert Axis("a", (1, 2.5)).labels() == [1.0, 2.5]
    assert Axis("a", ("x", True, {"kind": "layers"})).labels() == ["x", "true", '{"kind": "layers"}']
    assert Axis("a", (True, False)).labels() == ["true", "false"]
