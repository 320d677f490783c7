"""The page without a browser: what it says of a live run and of a comparison, and who may read it."""

import asyncio
import itertools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from page_site import COMPONENTS, PLANNED, STAGES_S, Events

import partway
from partway.cli.main import main
from partway.dashboard.app import HOSTS, STATIC, make_app, serving, source_of
from partway.dashboard.comparison import Comparison
from partway.dashboard.live import MISSED, LiveRun
from partway.dashboard.view import POINTS, Page, Tile, running_mean, thinned
from partway.errors import InputError
from partway.live.watch import WINDOW
from partway.measurement.gap import COMPONENT_NAMES
from partway.netcdf import save_dataset


def tile(page: Page, number: int) -> Tile:
    return next(one for one in page.views[0].tiles if one.name == f"device {number}")


def facts(page: Page, view: int = 0) -> dict[str, str]:
    return dict(page.views[view].facts)


# A live run


def test_before_anything_has_happened_the_page_waits(tmp_path: Path):
    run = LiveRun(tmp_path)
    assert (run.page().state, run.page().status) == ("waiting", "waiting for the server")
    events = Events(tmp_path)
    events.add("server", "Joined", device=1)
    assert run.page().status == "waiting for devices, 1 of 3 are there"
    assert [tile(run.page(), k).state for k in range(3)] == ["absent", "here", "absent"]


def test_the_page_follows_a_run(tmp_path: Path):
    events, run = Events(tmp_path), LiveRun(tmp_path)
    events.begin()
    events.block(0)
    assert run.page().status == "running, block 1 of 40"
    events.block(1)
    page = run.page()
    assert page.status == "running, block 2 of 40"
    assert page.every_s == PLANNED["block_s"]
    assert facts(page)["cost per block, last 2"] == "5"  # 0 and 10
    assert facts(page)["lower bound"] == "9"
    assert facts(page)["gap to the lower bound"] == "1 %"
    assert facts(page)["price of a task"] == "1.01"
    cost = page.views[0].charts[0]
    assert {line.name: line.values for line in cost.lines} == {
        COMPONENT_NAMES[name]: [0.0, value] for name, value in COMPONENTS.items()
    }
    assert (cost.mark, cost.over[0].values) == (9.0, [0.0, 5.0])


def test_the_page_of_a_run_that_has_ended_is_that_of_a_new_reader(tmp_path: Path):
    events, follower = Events(tmp_path), LiveRun(tmp_path)
    follower.page()
    events.whole()
    page = follower.page()
    assert page.as_json() == LiveRun(tmp_path).page().as_json()
    assert (page.state, page.every_s) == ("ended", None)
    assert facts(page)["tasks received, answered, received twice"] == "117, 117, 0"
    assert facts(page)["latency, mean"] == "500 ms"
    stages = page.views[0].bars[0].bars
    assert [bar.value for bar in stages] == pytest.approx(list(STAGES_S.values()))
    assert sum(bar.value for bar in stages) == pytest.approx(0.5)
    assert [bar.value for bar in page.views[0].bars[2].bars] == [0, 120, 0]


def test_tasks_that_the_end_of_the_run_cuts_off_are_the_slowest(tmp_path: Path):
    """The run ends at 10.3 s. Of 20 tasks 18 take 0.5 s, one would end at 10.5 s, and one waits from 9.3 s on."""
    events = Events(tmp_path)
    events.begin()
    events.block(39)
    for number in range(18):
        events.task(0, number)
    assert facts(LiveRun(tmp_path).page())["latency, 95 % within"] == "500 ms"
    events.task(0, 40)
    events.add("device-0", "TaskLeft", device=0, task=19, block=37, arrived_s=9.3)
    page = LiveRun(tmp_path).page()
    assert facts(page)["latency, 95 % within"] == "–"
    assert facts(page)["latency, mean"] == "515 ms"  # 18 of 0.5 s, 0.3 s, 1 s
    stages = page.views[0].bars[0]
    assert sum(bar.value for bar in stages.bars) == pytest.approx(0.515)
    assert stages.note == "The last 20 tasks that have ended, or were not finished when the run ended (2)."
    assert page.views[0].bars[2].bars[-1].value == 1


def test_a_cut_is_that_of_the_nearest_share(tmp_path: Path):
    events, run = Events(tmp_path), LiveRun(tmp_path)
    events.begin()
    events.block(1, {0: 0.58, 1: 0.99, 2: 0.0})
    page = run.page()
    assert [(bar.name, bar.value) for bar in page.views[0].bars[1].bars] == [("after image", 1), ("after conv1", 1)]
    assert tile(page, 0).lines == ["2 waiting", "started 2", "cut after conv1, 58 % of its work sent"]
    assert tile(page, 2).lines[-1] == "nothing sent"
    assert [tile(page, k).level for k in range(3)] == [0.5, 0.75, 1.0]


def test_a_lost_device_is_seen_at_once_and_again_when_it_is_back(tmp_path: Path):
    events, run = Events(tmp_path), LiveRun(tmp_path)
    events.begin()
    events.block(4)
    events.add("server", "Gone", device=1, how="lost")
    page = run.page()
    assert (tile(page, 1).state, tile(page, 1).word) == ("gone", "lost in block 5")
    assert page.alerts == ["device 1 was lost, block 5"]
    assert page.views[0].charts[0].note.endswith("whole fleet.")
    events.add("server", "Joined", device=1)
    page = run.page()
    assert tile(page, 1).state == "here"
    assert page.alerts == ["device 1 is back, block 5", "device 1 was lost, block 5"]


def test_a_device_that_says_it_leaves_is_not_lost(tmp_path: Path):
    events, run = Events(tmp_path), LiveRun(tmp_path)
    events.begin()
    events.add("server", "Gone", device=1, how="left")
    assert tile(run.page(), 1).state == "absent"
    assert run.page().alerts == []


def test_a_device_that_does_not_report_is_silent(tmp_path: Path):
    events, run = Events(tmp_path), LiveRun(tmp_path)
    events.begin()
    states = list[str]()
    for number in range(MISSED + 2):
        events.block(number, {0: 0.5, 2: 0.5} if number else None)
        states.append(tile(run.page(), 1).state)
    assert states == ["here"] * (MISSED + 1) + ["silent"]


def test_a_server_that_says_nothing_is_silent(tmp_path: Path):
    events, present = Events(tmp_path), [100.0]
    run = LiveRun(tmp_path, lambda: present[0])
    events.begin()
    events.block(0)
    assert run.page().state == "running"
    present[0] += 3.0
    assert run.page().state == "silent"
    events.block(1)
    assert run.page().state == "running"
    events.add("server", "Ended", received=0, answered=0, duplicates=0, late=0)
    present[0] += 3.0
    assert run.page().state == "ended"


def test_a_line_that_is_being_written_is_read_when_it_is_whole(tmp_path: Path):
    events, run = Events(tmp_path), LiveRun(tmp_path)
    with (tmp_path / "server.jsonl").open("a") as file:
        file.write('{"event": "Joined", "ti')
        file.flush()
        assert tile(run.page(), 0).state == "absent"
        file.write('me": 1, "device": 0}\n')
    assert tile(run.page(), 0).state == "here"
    assert "no events" not in run.page().status
    events.begin()


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_file_breaks_the_page(data: st.DataObject, tmp_path: Path):
    """One field of one event is something else, or a line is noise: the page says so and shows the rest."""
    folder = tmp_path / "events"
    folder.mkdir(exist_ok=True)
    for path in folder.glob("*"):
        path.unlink()
    events = Events(folder)
    events.begin()
    events.block(1)
    events.task(0, 0)
    path = folder / data.draw(st.sampled_from(["server.jsonl", "device-0.jsonl"]))
    lines = path.read_bytes().splitlines()
    which = data.draw(st.integers(0, len(lines) - 1))
    if data.draw(st.booleans()):
        lines[which] = data.draw(st.binary(max_size=30))
    else:
        event = json.loads(lines[which])
        event[data.draw(st.sampled_from(sorted(event)))] = data.draw(JSON)
        lines[which] = json.dumps(event).encode()
    path.write_bytes(b"\n".join(lines) + b"\n")
    json.dumps(LiveRun(folder).page().as_json(), allow_nan=False)


def test_a_line_that_is_nested_too_deeply_is_no_event(tmp_path: Path):
    events, run = Events(tmp_path), LiveRun(tmp_path)
    events.begin()
    with next(tmp_path.glob("*.jsonl")).open("a") as file:
        file.write("[" * 100_000 + "\n")
    assert run.page().status.endswith("; 1 lines of the files are not events")


def test_a_large_fleet_shows_those_that_are_missing(tmp_path: Path):
    events, run = Events(tmp_path, devices=300), LiveRun(tmp_path)
    events.begin()
    events.block(1)
    events.add("server", "Gone", device=250, how="lost")
    page = run.page()
    assert len(page.views[0].tiles) == 100
    assert tile(page, 250).state == "gone"
    assert page.views[0].tiles_note.startswith("100 of 300 devices")


# Numbers


def test_thinning_keeps_the_mean_and_gaps():
    blocks, values = np.arange(4 * POINTS), np.arange(4.0 * POINTS)[None].copy()
    values[0, :4] = np.nan
    at, (line,) = thinned(blocks, values)
    assert at == list(range(0, 4 * POINTS, 4))
    assert np.isnan(line[0])
    assert line[1:3] == [5.5, 9.5]
    assert thinned(np.arange(3), np.array([[1.0, 2.0, 3.0]])) == ([0, 1, 2], [[1.0, 2.0, 3.0]])


def test_a_running_mean_is_over_the_last_blocks():
    assert running_mean(np.array([1.0, 3.0, 5.0, 7.0]), 2).tolist() == [1.0, 2.0, 4.0, 6.0]


def test_the_mean_on_the_page_is_over_as_many_blocks_as_the_gap():
    from partway.dashboard.view import MEAN_BLOCKS

    assert MEAN_BLOCKS == WINDOW


# A comparison


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("comparison")
    dataset = partway.compare("paper", overrides={"devices": 2}, schemes=["local", "priced"], blocks=30, seeds=2)
    save_dataset(dataset, folder)
    return folder, dataset


def test_a_comparison_has_a_view_for_all_and_for_each(compared: tuple[Path, Any]):
    page = source_of(compared[0]).page()
    names = [summary.name for summary in sorted(partway.summarise(compared[1]), key=lambda one: one.cost.mean)]
    assert [view.name for view in page.views] == ["all schemes", *names]
    assert (page.state, page.every_s) == ("ended", None)
    costs = page.views[0].bars[0]
    assert [bar.name for bar in costs.bars] == names
    assert costs.mark == pytest.approx(float(compared[1].attrs["bound"]))
    json.dumps(page.as_json(), allow_nan=False)


def test_the_cost_of_a_scheme_is_drawn_in_the_order_of_a_live_run(compared: tuple[Path, Any]):
    view = Comparison(compared[0]).page().views[1]
    cost = compared[1]["cost"].sel(scheme=view.name).mean("seed")
    assert [line.name for line in view.charts[0].lines] == list(COMPONENT_NAMES.values())
    for name, line in zip(COMPONENT_NAMES, view.charts[0].lines, strict=True):
        np.testing.assert_allclose(line.values, cost.sel(component=name), rtol=1e-5, atol=1e-12)
    assert len(view.tiles) == 2


def test_the_price_is_drawn_beside_that_of_the_bound_where_there_is_one(compared: tuple[Path, Any]):
    views = {view.name: view.charts[2] for view in Comparison(compared[0]).page().views[1:]}
    price = compared[1]["price"].sel(scheme="priced").mean("seed")
    np.testing.assert_allclose(views["priced"].lines[0].values, price, rtol=1e-5)
    assert views["priced"].mark == pytest.approx(float(compared[1].attrs["bound_price"]))
    assert (views["local"].lines, views["local"].mark) == ([], None)
    assert "without a price" in views["local"].note


def test_a_folder_of_something_else_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(InputError, match="holds no results"):
        source_of(tmp_path)
    assert main(["view", str(tmp_path / "nowhere")]) == 2
    assert "is not a folder; give a folder of `partway compare --out`" in capsys.readouterr().err


# The application


def get(app: Any, path: str, host: str = "127.0.0.1:80") -> tuple[int, dict[str, str], bytes]:
    """(status, headers, body) of a request to an ASGI application."""
    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"host", host.encode())],
        "scheme": "http",
        "http_version": "1.1",
    }
    sent = list[dict[str, Any]]()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], headers, b"".join(one.get("body", b"") for one in sent[1:])


def test_the_page_and_its_state_are_served(tmp_path: Path):
    Events(tmp_path).whole()
    app = make_app(source_of(tmp_path))
    for path, kind in (("/", "text/html"), ("/page.css", "text/css"), ("/page.js", "text/javascript")):
        status, headers, body = get(app, path)
        assert (status, headers["content-type"].split(";")[0]) == (200, kind)
        assert "default-src 'none'" in headers["content-security-policy"]
        assert body
    status, _, body = get(app, "/state")
    assert status == 200
    assert json.loads(body) == LiveRun(tmp_path).page().as_json()
    for path in ("/nothing", "/../app.py", "/server.jsonl"):
        assert get(app, path)[0] == 404


def test_a_page_from_elsewhere_cannot_read_the_state_by_a_name_of_its_own(tmp_path: Path):
    app = make_app(LiveRun(tmp_path))
    assert get(app, "/state", "evil.example")[0] == 400
    assert [get(app, "/state", f"{host}:8080")[0] for host in HOSTS] == [200] * len(HOSTS)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.0.1", "example.org", "::"])
def test_the_page_is_for_this_machine_alone(host: str, tmp_path: Path):
    with pytest.raises(InputError, match="can be opened on this machine only"), serving(LiveRun(tmp_path), (host, 0)):
        pass


def test_the_page_loads_nothing_from_elsewhere():
    for file in STATIC.iterdir():
        addresses = set(re.findall(r"(?:https?:)?//[\w.]+\.\w+[^\s\"']*", file.read_text("utf-8")))
        assert addresses <= {"http://www.w3.org/2000/svg"}, file.name


# Colours

CVD = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
    "none": np.eye(3).tolist(),
}
"""What linear RGB becomes, at severity 1: Machado, Oliveira, Fernandes, IEEE TVCG 15 (2009), table 1."""
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
WHITE = TO_XYZ.sum(axis=1)


def linear(colour: str) -> np.ndarray:
    """Linear RGB of #rrggbb."""
    level = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIE L*a*b*."""
    ratio = TO_XYZ @ np.clip(rgb, 0, 1) / WHITE
    x, y, z = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def colours() -> dict[str, str]:
    text = (STATIC / "page.css").read_text("utf-8")
    return dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", text))


@pytest.mark.parametrize("kind", CVD)
def test_parts_that_touch_can_be_told_apart_by_everybody(kind: str):
    """A difference of 2.3 is just visible; parts of the cost differ by at least 20."""
    seen = [lab(np.array(CVD[kind]) @ linear(colours()[f"c{k}"])) for k in range(4)]
    assert min(float(np.linalg.norm(a - b)) for a, b in itertools.combinations(seen, 2)) > 20


def contrast(one: str, other: str) -> float:
    """WCAG 2.1."""
    light, dark = sorted(float(np.array([0.2126, 0.7152, 0.0722]) @ linear(each)) for each in (one, other))[::-1]
    return (light + 0.05) / (dark + 0.05)


def test_text_and_lines_can_be_read():
    named = colours()
    grounds = [named[name] for name in ("card", "ground", "warn")]
    assert min(contrast(named[name], ground) for name in ("ink", "soft") for ground in grounds) > 4.5
    assert min(contrast(named[name], named["card"]) for name in ("c0", "c2", "good", "bad", "off", "focus")) > 3
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
