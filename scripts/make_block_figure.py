"""Draws docs/img/block.png and .svg: one block of the system, the two parts of an action, and the cost (8).

The numbers in it: n = 5 slots, 4 tasks waiting, 3 of them started, 0.6 of the last one offloaded, 2 arrivals.
"""

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle

from partway.figures.colours import COMPONENT_COLOURS

IMAGES = Path(__file__).parents[1] / "docs" / "img"
SLOTS, WAITING, STARTED, OFFLOAD = 5, 4, 3, 0.6
ARRIVALS = (2, 4)
"""Slots of block t in which a task arrives."""
SERVER_START = SLOTS + 1
"""The server's block t starts n + 1 slots after the devices' block t."""
END = 3 * SLOTS + 1.4
LANES = {"queue": 4.0, "cpu": 3.0, "radio": 2.0, "server queue": 0.75, "server cpu": -0.25}
HEIGHT = 0.56
RIGHT = END + 0.2
INK, SOFT, FAINT, GREEN = "0.15", "0.4", "#eef1f4", "#1a7f4b"
STYLE: dict[Any, Any] = {"font.size": 9, "svg.fonttype": "path", "svg.hashsalt": "partway", "savefig.dpi": 150}


def main() -> None:
    """Write both files."""
    with mpl.rc_context(STYLE):
        figure = draw()
        for kind in ("png", "svg"):
            metadata = {"Date": None} if kind == "svg" else None
            figure.savefig(IMAGES / f"block.{kind}", metadata=metadata)


def draw() -> Figure:
    """The timeline of one device and the server over three blocks."""
    figure = Figure(figsize=(9.6, 4.9))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set(xlim=(-2.5, END + 4.1), ylim=(-1.5, 5.75))
    axes.axis("off")
    blocks(axes)
    lanes(axes)
    device(axes)
    offloaded(axes)
    feedback(axes)
    return figure


def blocks(axes: Axes) -> None:
    """Slots and the names of the blocks, of the device above and of the server below."""
    for slot in range(3 * SLOTS + 1):
        bold = slot % SLOTS == 0
        axes.plot([slot, slot], [1.55, 4.7], color="0.55" if bold else "0.86", lw=1.1 if bold else 0.7, zorder=0)
    for slot in range(1, 3 * SLOTS + 2):
        bold = slot % SLOTS == 1
        axes.plot([slot, slot], [-0.72, 1.2], color="0.55" if bold else "0.86", lw=1.1 if bold else 0.7, zorder=0)
    for i, name in enumerate(("block t", "block t + 1", "block t + 2")):
        label(axes, SLOTS * (i + 0.5), 4.95, name, weight="bold")
        server = ("server block t - 1", "server block t", "server block t + 1")[i]
        label(axes, SLOTS * (i + 0.5) + 1, -0.95, server, weight="bold")
    label(axes, SLOTS / 2, 5.4, "n = 5 slots of length τ", color=SOFT)
    arrow(axes, (0, 5.22), (SLOTS, 5.22), style="<->", color=SOFT)
    arrow(axes, (0, -1.22), (SERVER_START, -1.22), style="<->", color=SOFT)
    label(axes, SERVER_START / 2, -1.4, "the server's block t starts n + 1 slots later", color=SOFT)


def lanes(axes: Axes) -> None:
    """What each row is, and at the right its term of the cost."""
    names = {"queue": "device queue", "cpu": "device CPU", "radio": "device radio"}
    costs = {
        "queue": ("device_queue", r"$w_3\,\times$ work waiting"),
        "cpu": ("device_energy", r"$w_4\,\times$ CPU energy"),
        "radio": ("device_energy", r"$w_4\,\times$ radio energy"),
        "server queue": ("server_queue", r"$w_1\,\times$ work waiting"),
        "server cpu": ("server_energy", r"$w_2\,\times$ CPU energy"),
    }
    label(axes, RIGHT, 4.95, "cost of a block, (8)", weight="bold", ha="left")
    for lane, (component, text) in costs.items():
        y = LANES[lane]
        label(axes, -0.35, y, names.get(lane, lane.replace("cpu", "CPU")), ha="right")
        tint = COMPONENT_COLOURS[component]
        axes.add_patch(Rectangle((RIGHT, y - 0.14), 0.28, 0.28, facecolor=tint, edgecolor="none"))
        label(axes, RIGHT + 0.45, y, text, ha="left")
    label(axes, RIGHT, 1.5, "summed over all devices", color=SOFT, ha="left", size=8)


def device(axes: Axes) -> None:
    """Queue, arrivals and CPU in block t."""
    tiles(axes, "queue", 0.18, WAITING, COMPONENT_COLOURS["device_queue"])
    axes.plot([0.18, 0.18 + 0.5 * STARTED - 0.12], [3.66, 3.66], color=INK, lw=1.2)
    label(
        axes,
        2.3,
        LANES["queue"] + 0.03,
        f"{WAITING} tasks wait,\nstarted = {STARTED}",
        ha="left",
        size=8,
        weight="bold",
    )
    for slot in ARRIVALS:
        arrow(axes, (slot - 0.5, 4.74), (slot - 0.5, 4.38), color=SOFT)
    label(axes, ARRIVALS[-1] - 0.3, 4.56, "arrivals", ha="left", size=8, color=SOFT)
    left = WAITING - STARTED + len(ARRIVALS)
    tiles(axes, "queue", SLOTS + 0.18, left, COMPONENT_COLOURS["device_queue"])
    sums = f"{WAITING} - {STARTED} + {len(ARRIVALS)} = {left}\ntasks wait"
    label(axes, SLOTS + 1.8, LANES["queue"] + 0.03, sums, ha="left", size=8)
    tint, width = COMPONENT_COLOURS["device_energy"], SLOTS / (STARTED - OFFLOAD)
    for i in range(STARTED - 1):
        bar(axes, "cpu", i * width, width, f"task {i + 1}", tint)
    own = (1 - OFFLOAD) * width
    bar(axes, "cpu", SLOTS - own, own, f"{1 - OFFLOAD:.0%} of\ntask {STARTED}", tint, size=7)
    for block in (1, 2):
        bar(axes, "cpu", block * SLOTS, SLOTS, f"tasks started in block t + {block}", FAINT)


def offloaded(axes: Axes) -> None:
    """The rest of the last task: radio slot, server's queue, server's CPU."""
    share, arrives = f"{OFFLOAD:.0%} of task {STARTED}", 2 * SLOTS + 1
    bar(axes, "radio", SLOTS, 1, "send", COMPONENT_COLOURS["device_energy"])
    label(axes, SLOTS - 0.2, LANES["radio"], f"offload = {OFFLOAD}", ha="right", size=8, weight="bold")
    label(axes, SLOTS + 1.15, LANES["radio"], "the tensor at the cut", ha="left", size=8)
    arrow(axes, (SLOTS - 0.1, LANES["cpu"] - HEIGHT / 2), (SLOTS + 0.35, LANES["radio"] + HEIGHT / 2))
    arrow(axes, (SLOTS + 0.8, LANES["radio"] - HEIGHT / 2), (SLOTS + 1.1, LANES["server queue"] + HEIGHT / 2))
    bar(axes, "server queue", SLOTS + 1, SLOTS, "", FAINT)
    words = f"{share}: queued\nfrom the next block on"
    label(axes, SLOTS + 1.15, LANES["server queue"], words, ha="left", size=8)
    tiles(axes, "server queue", arrives + 0.18, 1, COMPONENT_COLOURS["server_queue"], OFFLOAD)
    tiles(axes, "server queue", arrives + 0.18 + 0.5 * OFFLOAD, 2, COMPONENT_COLOURS["server_queue"])
    label(axes, arrives + 1.7, LANES["server queue"], f"{share}, and\nwork of other devices", ha="left", size=8)
    bar(axes, "server cpu", 1, 2 * SLOTS, "work that was offloaded earlier", FAINT)
    bar(axes, "server cpu", arrives, SLOTS, "serves what is in its queue", COMPONENT_COLOURS["server_energy"])


def feedback(axes: Axes) -> None:
    """The broadcast from the start of the server's block t to the devices' block t + 2."""
    start, end = (SLOTS + 1, 0.22), (2 * SLOTS, LANES["cpu"] - HEIGHT / 2)
    bent = FancyArrowPatch(start, end, arrowstyle="-|>", connectionstyle="angle,angleA=0,angleB=90,rad=4")
    bent.set(mutation_scale=10, color=GREEN, lw=1.4, linestyle="--")
    axes.add_patch(bent)
    label(axes, 2 * SLOTS + 0.15, 1.98, "broadcast of server block t, such as", ha="left", size=8, color=GREEN)
    label(axes, 2 * SLOTS + 0.15, 1.72, "a price: used in block t + 2", ha="left", size=8, color=GREEN)


def bar(axes: Axes, lane: str, start: float, width: float, text: str, colour: str, size: float = 8) -> None:
    """A labelled stretch of time in a row."""
    y = LANES[lane]
    axes.add_patch(Rectangle((start, y - HEIGHT / 2), width, HEIGHT, facecolor=colour, edgecolor="white", lw=1.2))
    label(axes, start + width / 2, y, text, size=size)


def tiles(axes: Axes, lane: str, x: float, count: int, colour: str, share: float = 1.0) -> None:
    """Waiting tasks, or a `share` of each."""
    for i in range(count):
        corner = (x + 0.5 * i, LANES[lane] - 0.2)
        axes.add_patch(Rectangle(corner, 0.38 * share, 0.4, facecolor=colour, edgecolor="none"))


def label(
    axes: Axes,
    x: float,
    y: float,
    text: str,
    size: float = 9,
    ha: str = "center",
    color: str = INK,
    weight: str = "normal",
) -> None:
    """Words, centred on their height."""
    axes.text(x, y, text, color=color, va="center", ha=ha, fontsize=size, weight=weight)


def arrow(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], color: str = INK, style: str = "-|>"
) -> None:
    """A thin arrow."""
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle=style, mutation_scale=9, color=color, lw=1.1, zorder=3))


if __name__ == "__main__":
    main()
