"""The small network, its halves at every cut, and what is refused."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from partway.errors import InputError
from partway.live import demo
from partway.live.halves import Halves
from partway.live.network import small_network, write_small_network
from partway.scenario.loading import load
from partway.system.load import load_of
from partway.system.placement import sample_placement
from partway.system.world import build


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Halves]:
    path = write_small_network(tmp_path_factory.mktemp("small"))
    return {dtype: Halves(path, dtype) for dtype in ("fp32", "fp16")}


def test_the_small_network_is_small_and_always_the_same():
    one, other = (small_network().SerializeToString() for _ in range(2))
    assert one == other
    assert len(one) < 1_000_000


def test_it_has_a_skip_connection_and_several_cuts(halves: dict[str, Halves]):
    assert [node.op_type for node in small_network().graph.node].count("Add") == 1
    assert len(halves["fp32"].shares) == 6


def test_both_halves_give_the_whole_networks_result_bit_for_bit(halves: dict[str, Halves]):
    whole = halves["fp32"]
    for number in range(3):
        expected = whole.whole_now(number)["scores"]
        assert np.ptp(expected) > 0.1
        for share in whole.shares[1:]:
            model, tensors = whole.front_now(float(share), number)
            assert whole.refusal(model, tensors) is None
            np.testing.assert_array_equal(whole.back_now(model, tensors)["scores"], expected)


def test_tensors_as_float16_give_nearly_the_same(halves: dict[str, Halves]):
    short = halves["fp16"]
    expected = short.whole_now(1)["scores"]
    for share in short.shares[1:]:
        model, tensors = short.front_now(float(share), 1)
        assert all(tensor.dtype in (np.float16, np.uint8) for tensor in tensors.values())
        np.testing.assert_allclose(short.back_now(model, tensors)["scores"], expected, atol=1e-2)


def test_what_is_sent_has_the_bits_of_the_profile(halves: dict[str, Halves]):
    """The emulated radio takes as long as these bits do: they must be those that really travel."""
    for dtype, own in halves.items():
        bits = own.profile.bits(dtype)[own._rows]
        for share, expected in zip(own.shares, bits, strict=True):
            model, tensors = own.front_now(float(share), 0)
            sent = 8 * sum(tensor.nbytes for tensor in tensors.values()) if model else 0
            assert sent == expected


def test_the_share_of_zero_is_the_whole_network(halves: dict[str, Halves]):
    model, outputs = halves["fp16"].front_now(0.0, 2)
    assert model == ""
    np.testing.assert_array_equal(outputs["scores"], halves["fp16"].whole_now(2)["scores"])


def test_tasks_have_inputs_of_their_own(halves: dict[str, Halves]):
    one, other = (halves["fp32"].inputs(number)["image"] for number in (0, 1))
    assert not np.array_equal(one, other)
    np.testing.assert_array_equal(one, halves["fp32"].inputs(0)["image"])


def test_tensors_that_do_not_fit_are_refused(halves: dict[str, Halves]):
    own = halves["fp16"]
    model, tensors = own.front_now(float(own.shares[3]), 0)
    name, tensor = next(iter(tensors.items()))
    assert "no model" in (own.refusal("cut-99", tensors) or "")
    assert "takes" in (own.refusal(model, {}) or "")
    assert "takes" in (own.refusal(model, {**tensors, name: tensor.astype(np.float32)}) or "")
    assert "takes" in (own.refusal(model, {**tensors, name: tensor[..., :-1]}) or "")
    assert "takes" in (own.refusal(model, {**tensors, "other": tensor}) or "")


def test_a_data_type_in_which_nothing_is_sent_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="fp32 or fp16"):
        Halves(write_small_network(tmp_path), "uint8")


def test_the_halves_are_computed_beside_the_loop(halves: dict[str, Halves]):
    async def main() -> np.ndarray:
        model, tensors = await halves["fp16"].front(float(halves["fp16"].shares[2]), 0)
        return (await halves["fp16"].back(model, tensors))["scores"]

    np.testing.assert_allclose(asyncio.run(main()), halves["fp16"].whole_now(0)["scores"], atol=1e-2)


def test_the_first_scenario_is_stable_and_its_slow_devices_need_the_server(halves: dict[str, Halves], tmp_path: Path):
    profile = halves["fp16"].profile
    scenario = load(demo.scenario_for(profile, demo.write_network_profile(profile, tmp_path)))
    world = build(scenario, sample_placement(scenario))
    capacity = np.asarray(world.devices.capacity)
    np.testing.assert_allclose(capacity, [1.5, 2.5, 1.5, 2.5])
    load_ = load_of(scenario, world)
    assert load_.device_utilisation > 1  # alone a slow device finishes one task a block of 1.25 that arrive
    assert load_.system_utilisation < 0.5
    assert load_.infeasible_devices == load_.overloaded_devices == 0
