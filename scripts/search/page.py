"""What the search has found, for docs/paper.md: a table, a figure, and the values of the best settings."""

import csv
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from pages import paragraph, write_section

from partway.figures.style import figure_style
from partway.paper.figure_runs import FULL
from partway.paper.search.score import needed
from partway.paper.search.space import CANDIDATES, STOPPING_RULE, space
from partway.paper.statistics import HOLDS
from search import data, judge, sensitivity, stages
from search.data import Tried, preset_value, short_claim
from search.plans import PLANS

ALL_FIGURES = ("extend", "evolve-all")
"""Stages that have Figures 6 to 9."""
IMAGES = data.ROOT / "docs" / "img"
FACTORS = {
    "weights.server_queue": "w1",
    "weights.server_energy": "w2",
    "weights.device_energy": "w4",
    "device.task.bits_per_cycle": "zeta",
    "device.cpu_max_hz": "f_max of devices",
    "server.cpu_max_hz": "f_max of the server",
}
"""What of the world a setting has in other units than the preset `paper`, and its name in a sentence."""
NOISE = {-174.0: "-174 dBm/Hz", -204.0: "as printed (T7)"}
SEEN = 16
"""Replicates from which on a setting is in the figure."""


def judged() -> list[str]:
    """Candidates that have verdicts."""
    return [name for name in CANDIDATES if (data.DATA / f"{name}-verdicts.csv").exists()]


def varied() -> list[str]:
    """Candidates of which one parameter at a time was changed."""
    return [name for name in CANDIDATES if sensitivity.path_of(name).exists()]


def done(candidate: str) -> list[str]:
    """The stages that have tried settings of a candidate; a preset can be judged before the last of them."""
    return [stage for stage in PLANS if data.path_of(candidate, stage).exists()]


def rows(name: str) -> list[dict[str, str]]:
    """The rows of a file of data."""
    with (data.DATA / name).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def settings_of(candidate: str, stages: Collection[str] = tuple(PLANS)) -> int:
    """How many different settings were tried in these stages."""
    known = [stage for stage in done(candidate) if stage in stages]
    return len({one.setting for stage in known for one in data.read(candidate, stage)})


def seen(candidate: str) -> list[Tried]:
    """The settings with all claims on most replicates."""
    known = [one for stage in done(candidate) if stage in ALL_FIGURES for one in data.read(candidate, stage)]
    return [one for one in known if one.replicates >= SEEN]


def together(tried: Sequence[Tried], claims: Sequence[str]) -> np.ndarray:
    """(claims, claims) whether both are likely to hold in some setting."""
    likely = np.array([[one.weakest[name] >= needed() for name in claims] for one in tried], int)
    return likely.T @ likely > 0


def draw(tried: Mapping[str, Sequence[Tried]]) -> Figure:
    """A panel for each candidate: dark where two claims were likely in the same setting."""
    figure = Figure(figsize=(4.2 * len(tried), 4.7), layout="constrained")
    figure.suptitle("Claims that were likely to hold in the same setting (on the diagonal: in any setting)")
    for axes, (candidate, own) in zip(figure.subplots(1, len(tried), squeeze=False)[0], tried.items(), strict=True):
        claims = list(own[0].weakest)
        axes.imshow(together(own, claims), cmap="Greens", vmin=0, vmax=1.2, interpolation="nearest")
        words = [short_claim(name) for name in claims]
        axes.set_title(f"{candidate}: at most {max(one.likely() for one in own)} of {len(claims)} at once")
        axes.set_xticks(range(len(claims)), words, rotation=90, fontsize=7)
        axes.set_yticks(range(len(claims)), words, fontsize=7)
        axes.grid(visible=False)
    return figure


def write_settings(candidates: Sequence[str]) -> None:
    """Write every parameter, its range and reason, what the preset `paper` has, and what was found, as CSV."""
    found = {name: dict(stages.best(seen(name)).setting) for name in candidates}
    known = {name: one for candidate in candidates for name, one in space(candidate).items()}
    with (data.DATA / "settings.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("parameter", "from", "to", "why", "paper", *candidates))
        for name, one in known.items():
            ends = (", ".join(map(str, one.choices)), "") if one.choices else (f"{one.low:g}", f"{one.high:g}")
            values = [found[candidate].get(name, "") for candidate in candidates]
            writer.writerow((name, *ends, one.why, preset_value(name), *values))


def words_of(claim: str) -> str:
    """A claim and its phase in a sentence."""
    return claim.replace("from_start", "from empty queues").replace("after_training", "after training")


def table(candidates: Sequence[str]) -> str:
    """What was found for each candidate."""
    first = (
        "| candidate | settings (on all figures) | verdicts that hold in the best | with baselines at best steps "
        f"| baselines cost more than with these by | likely in no setting with {SEEN} replicates "
        "| the best setting, as factors of the preset `paper` |"
    )
    return "\n".join((first, "|---" * 7 + "|", *map(row, candidates)))


def row(candidate: str) -> str:
    """A row of the table."""
    known = seen(candidate)
    never = [name for name in known[0].weakest if all(one.weakest[name] < needed() for one in known)]
    verdicts, baselines = rows(f"{candidate}-verdicts.csv"), rows(f"{candidate}-baselines.csv")
    excess = ", ".join(f"{one['baseline']} {percent_words(one['cost above these [%]'])} %" for one in baselines)
    held = [sum(one[column] == HOLDS for one in verdicts) for column in ("verdict", "with best steps")]
    cells = (
        f"`{candidate}`",
        f"{settings_of(candidate):,} ({settings_of(candidate, ALL_FIGURES):,})",
        f"[{held[0]} of {len(verdicts)}](data/search/{candidate}-verdicts.csv)",
        str(held[1]),
        f"[{excess}](data/search/{candidate}-baselines.csv)",
        f"{', '.join(map(words_of, never)) or 'none'} (of {len(known)})",
        world_words(dict(stages.best(known).setting)),
    )
    return f"| {' | '.join(cells)} |"


def percent_words(text: str) -> str:
    """A percentage with two digits, or as many as it has before the point."""
    number = float(text)
    return f"{number:.0f}" if number >= 10 else f"{number:.2g}"


def world_words(setting: Mapping[str, Any]) -> str:
    """What a setting assumes about the world, against the preset `paper`."""
    horizon, usual = (1.0 / (1.0 - discount) for discount in (setting["discount"], preset_value("discount")))
    factors = ", ".join(f"{words} x {setting[name] / preset_value(name):.2g}" for name, words in FACTORS.items())
    reading = str(setting.get("queue", preset_value("queue"))).replace("_", " ")
    noise = setting["radio.noise_dbm_per_hz"]
    return (
        f"1/(1 - gamma) = {horizon:.2g} blocks (`paper`: {usual:.2g}), {factors}, noise {NOISE[noise]}, "
        f"(1) {reading}; learning stops: {setting[STOPPING_RULE]}"
    )


def text(candidates: Sequence[str], varied: Sequence[str]) -> str:
    """The section."""
    links = (f"[{one}](img/sensitivity-{one}.png) ([data](data/search/{one}-sensitivity.csv))" for one in varied)
    one_by_one = f"One parameter varied: {', '.join(links)}." if varied else ""
    searched = paragraph(f"""
        A *candidate* is a scheme in the place of the proposed one. A *setting* gives a value to every parameter
        [that is not published](data/search/settings.csv), with the noise, both forms of (1), stopping, and steps of the
        baselines' own. A *replicate* is a seed with a placement of its own. A claim is *likely* in a setting if each of
        its comparisons is {needed():.1f} standard errors on its side. `make search` tries settings all over the space
        on Figures 6 and 7, and CMA-ES makes the weakest comparison stronger. The best are measured on Figures 6 to 9,
        and a second CMA-ES raises the number of likely claims. The best of all is the preset `paper-fitted-*`, judged
        on {len(FULL.seeds)} replicates that the search did not use. *Best steps* are the first steps, of
        {judge.STEPS} x {judge.STEPS} (for `random` the rate), with which a baseline is cheapest at the end of Figure 7
        there. [Likely together](img/search.png); [every setting](data/search/). {one_by_one}
    """)
    return f"{searched}\n\n{table(candidates)}"


def write() -> None:
    """Write the values, the figure and the section, for the candidates that have been judged."""
    candidates = judged()
    write_settings(candidates)
    with figure_style():
        draw({name: seen(name) for name in candidates}).savefig(IMAGES / "search.png", bbox_inches="tight")
        for name in varied():
            drawn = sensitivity.draw(sensitivity.read(name))
            drawn.savefig(IMAGES / f"sensitivity-{name}.png", bbox_inches="tight")
    write_section(data.ROOT / "docs" / "paper.md", "search", text(candidates, varied()))
