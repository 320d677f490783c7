"""What `partway live` says before a run: whether tasks take longer with the server than on devices alone."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from partway.cli import live
from partway.cli.main import main
from partway.cli.terminal import terminal
from partway.errors import InputError
from partway.formatting import plain
from partway.live import demo
from partway.live.halves import Halves
from partway.live.network import write_small_network
from partway.live.outlook import Outlook, Quicker
from partway.live.plan import make_plan
from partway.live.report import Figures
from partway.scenario.loading import load

BLOCKS = 120
SLOT_S, SLOTS = 0.1, 5


def outlook_of(scheme: str, blocks: int = BLOCKS, **device: Any) -> Outlook:
    """Of two of the paper's devices; energy costs next to nothing, so that what is decided shortens the queues."""
    server = device.pop("server", {})
    weights = {"device_energy": 1e-9, "server_energy": 1e-9}
    scenario = {"devices": 2, "slot_s": SLOT_S, "slots_per_block": SLOTS, "weights": weights, "device": device}
    _, outlook = live._simulated(make_plan(load(scenario | {"server": server}), scheme, blocks=blocks), None)
    assert outlook is not None
    return outlook


def test_sending_every_task_is_slower_where_devices_have_time_for_all():
    """A device that could finish four tasks in a block gets half a task.

    Alone it starts a task in the block after it has arrived and is done at the end of that block at the latest. A task
    that is sent then still needs the radio's slot and waits a whole block for the server: six slots more, at least.
    """
    found = outlook_of("full", arrival_prob=0.1)
    later = (SLOTS + 1) * SLOT_S
    assert (found.is_stable_alone, found.is_slower) == (True, True)
    assert found.utilisation == pytest.approx(0.125)
    assert found.with_server.latency >= found.alone.latency + later
    assert found.with_server.p95 >= found.alone.p95 + later
    assert found.sentence().startswith("Cooperation makes tasks slower: with full 95 % of the tasks take up to ")


def test_a_server_that_cannot_keep_up_is_slower():
    """It gets 1e10 cycles a block from two devices, and has 5e9."""
    found = outlook_of("full", arrival_prob=0.1, server={"cpu_max_hz": 1e10})
    assert found.is_slower is True
    assert np.isnan(found.with_server.p95)
    assert "with full more than 5 % of the tasks are not done when the run ends, on devices alone" in found.sentence()


def test_cooperation_is_faster_where_devices_hardly_finish_what_they_get():
    """A CPU for 1.9 tasks of a block finishes one, and gets 0.95: alone tasks queue; with a tenth of the second one at
    the server it finishes two."""
    found = outlook_of("priced", 400, cpu_max_hz=38e9, arrival_prob=0.19)
    assert (found.is_stable_alone, found.is_slower) == (True, False)
    assert found.utilisation == pytest.approx(0.95)
    assert found.with_server.p95 < 0.5 * found.alone.p95
    assert found.with_server.latency < found.alone.latency
    assert found.sentence().startswith("Cooperation does not make tasks slower: with priced 95 % of the tasks take ")


def test_devices_that_are_unstable_alone_are_said_to_be():
    """1.25 tasks arrive in a block, of which a device finishes one."""
    found = outlook_of("priced", cpu_max_hz=38e9, arrival_prob=0.25)
    assert (found.is_stable_alone, found.is_slower) == (False, None)
    assert found.sentence().startswith(
        "Devices alone are unstable: the busiest one gets 125% of the tasks that it can finish. With priced 95 % of "
    )


def test_devices_alone_are_compared_with_nothing():
    assert live._simulated(make_plan(load({"devices": 2}), "local", blocks=10), None)[1] is None


def test_weights_that_make_it_as_quick_as_devices_alone_are_named_where_they_do(tmp_path: Path):
    """In the example of docs/live.md they do; where every task is sent whatever the weights, they do not."""
    network = Halves(write_small_network(tmp_path), "fp16").profile
    example = demo.scenario_for(network, demo.write_network_profile(network, tmp_path))
    changes = {"device.arrival_prob": 0.1}
    weights = {"weights.device_energy": 5.0, "weights.server_energy": 5.0, "weights.server_queue": 3e-7}
    _, found = live._simulated(make_plan(load(example, changes), "priced", blocks=160), None)
    assert found is not None
    assert found.quicker is not None
    assert found.quicker.weights == pytest.approx(weights)
    again, _ = live._simulated(make_plan(load(example, changes | weights), "priced", blocks=160), None)
    assert again.p95 == found.quicker.figures.p95 < found.alone.p95 < found.with_server.p95
    given = "\n--set weights.device_energy=5 weights.server_energy=5 weights.server_queue=3e-07"
    assert " (simulated). With these weights 95 % of the tasks take up to " in found.sentence()
    assert found.sentence().endswith(given)
    _, useless = live._simulated(make_plan(load(example, changes), "full", blocks=160), None)
    assert useless is not None
    assert useless.quicker is not None
    assert useless.is_slower
    assert "--set" not in useless.sentence()


def figures(latency: float, p95: float, device_j: float) -> Figures:
    return Figures(1.0, {}, device_j, 0.0, np.nan, "", latency, p95 / 2, p95)


def test_the_sentence_has_the_numbers():
    mine, theirs = figures(0.5423, 1.1, 0.0238), figures(0.4, 1.0, 0.036)
    assert Outlook("priced", mine, theirs, 0.8).sentence() == (
        "Cooperation makes tasks slower: with priced 95 % of the tasks take up to 1100 ms, on devices alone 95 % of "
        "the tasks take up to 1000 ms; mean 542.3 instead of 400 ms, energy of the device per task 23.8 instead of "
        "36 mJ (simulated)."
    )
    assert Outlook("priced", theirs, theirs, 0.8).sentence().startswith("Cooperation does not make tasks slower: ")
    mixed = Outlook("priced", figures(0.5, 0.9, 0.0), theirs, 0.8)
    assert (mixed.is_slower, mixed.is_slower_on_average) == (False, True)
    assert mixed.sentence().startswith("Cooperation makes tasks slower on average, but not the slowest ones: with ")
    cannot = Outlook("priced", mine, theirs, np.inf)
    assert cannot.sentence() == (
        "Devices alone are unstable: one of them cannot finish a task in a block. With priced 95 % of the tasks take "
        "up to 1100 ms (simulated)."
    )
    assert json.loads(json.dumps(plain(cannot.as_json()), allow_nan=False)) == {
        "scheme": "priced",
        "utilisation_alone": None,
        "slower": None,
        "slower_on_average": None,
        "with_server": {"latency_s": 0.5423, "p95_s": 1.1, "device_j_per_task": 0.0238},
        "alone": {"latency_s": 0.4, "p95_s": 1.0, "device_j_per_task": 0.036},
        "quicker": None,
    }


@pytest.mark.parametrize(("p95", "helps"), [(0.9, True), (1.0, True), (1.05, False), (np.nan, False)])
def test_weights_are_in_the_file_where_the_sentence_names_them(p95: float, helps: bool):
    """Devices alone take up to 1 s, the scheme 1.1 s, and with the other weights `p95`."""
    weights = {"weights.device_energy": 5.0}
    found = Outlook(
        "priced", figures(0.5, 1.1, 0.02), figures(0.4, 1.0, 0.036), 0.8, Quicker(weights, figures(0.4, p95, 0.03))
    )
    expected = {"weights": weights, "latency_s": 0.4, "p95_s": p95, "device_j_per_task": 0.03} if helps else None
    assert found.as_json()["quicker"] == expected
    assert found.sentence().endswith("\n--set weights.device_energy=5") == helps


@pytest.mark.parametrize(
    ("with_server", "alone", "slower"),
    [(1.0, np.nan, False), (np.nan, 1.0, True), (np.nan, np.nan, False)],
)
def test_tasks_that_are_not_done_when_the_run_ends_are_the_slowest(with_server: float, alone: float, slower: bool):
    """Devices that are stable alone may still have a queue when a short run ends."""
    found = Outlook("priced", figures(0.3, with_server, 0.0), figures(0.4, alone, 0.0), 0.99)
    assert found.is_slower is slower
    assert found.sentence().startswith(f"Cooperation {'makes' if slower else 'does not make'} tasks slower: ")


def test_it_is_said_before_the_run_begins(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """On standard error where JSON goes to standard output."""

    def stop(*given: Any) -> Any:
        raise InputError("the run would begin")

    monkeypatch.setattr(live, "_run", stop)
    expected = "Devices alone are unstable: the busiest one gets 125% of the tasks that it can finish. With priced "
    assert main(["live", "--blocks", "10"]) == 2
    assert one_line(capsys.readouterr().out).startswith(expected)
    assert main(["live", "--blocks", "10", "--json", "-"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert expected in one_line(said.err)


@pytest.mark.parametrize("columns", [80, 100])
def test_it_fits_the_terminal_and_the_flags_can_be_copied(columns: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    weights = {"weights.device_energy": 5.0, "weights.server_energy": 5.0, "weights.server_queue": 3e-7}
    found = Outlook(
        "priced", figures(0.5, 1.1, 0.02), figures(0.4, 1.0, 0.03), 0.8, Quicker(weights, figures(0.4, 0.9, 0))
    )
    console = terminal()
    with console.capture() as printed:
        live._say(found, console)
    *lines, flags = printed.get().splitlines()
    assert flags == "--set weights.device_energy=5 weights.server_energy=5 weights.server_queue=3e-07"
    assert max(map(len, lines)) <= columns
    assert one_line(printed.get()) == one_line(found.sentence())


def one_line(text: str) -> str:
    return " ".join(text.split())
