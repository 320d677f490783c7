"""A reproduction as one HTML page that needs nothing but itself."""

import base64
import html
import inspect
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from partway.paper import figure_runs as reproduction
from partway.paper import proposition1, remark1
from partway.paper import statistics as verdicts
from partway.paper import verdicts as judge
from partway.paper.claims import CANDIDATES, READINGS, Claim, claims
from partway.paper.figure_runs import Part
from partway.paper.jobs import code_hash, part_name
from partway.paper.report import ENOUGH, PHASE_WORDS, READING_WORDS, interval_words, made_with
from partway.paper.reproduce import Findings
from partway.paper.statistics import ALPHA, FAILS, HOLDS, NOT_APPLICABLE, UNDECIDED
from partway.paper.verdicts import Verdict, phases

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ddd; }
table { border-collapse: collapse; width: 100%; font-size: 13px; }
th, td { padding: .35rem .5rem; text-align: left; vertical-align: top; border-bottom: 1px solid #e5e5e5; }
thead th { position: sticky; top: 0; background: #fff; } td.v { white-space: nowrap; }
.holds { background: #dff3e0; } .fails { background: #fbdedb; }
.undecided { background: #fff3cd; } .not { color: #999; }
small { color: #555; display: block; } img { max-width: 100%; } code { font-size: 12.5px; }
pre { background: #f6f6f6; padding: .6rem; overflow-x: auto; font-size: 12px; }
details { margin: .4rem 0; } summary { cursor: pointer; }
"""
CLASSES = {HOLDS: "holds", FAILS: "fails", UNDECIDED: "undecided", NOT_APPLICABLE: "not"}
SOURCES: dict[str, Callable[..., Any]] = {
    "the claims, their windows and points": claims,
    "the runs": reproduction.play,
    "one lane of them": reproduction.lanes,
    "the block at which learning has settled": reproduction.settled,
    "what a term of a claim is read from": judge.value,
    "intervals and Holm's method": verdicts.decide,
    "the verdict": verdicts.verdict,
    "Proposition 1, both sides": proposition1.PropositionPart.play,
    "Remark 1, operations": remark1.operations,
}
"""What a number is made by."""


def page(findings: Findings, figures: Sequence[Path]) -> str:
    """The page; `figures` are SVG files, which become part of it."""
    parts = [
        _head(findings),
        *(_verdict_table(findings, reading) for reading in READINGS),
        *(_picture(path) for path in figures),
        _details(findings),
        _origin(findings),
    ]
    body = "\n".join(parts)
    title = "Section VI, reproduced"
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>'
    return f'<!doctype html>\n<html lang="en"><head>{head}<style>{STYLE}</style></head><body>\n{body}\n</body></html>\n'


def _head(findings: Findings) -> str:
    seeds = findings.sizes.seeds
    counts = {word: sum(one.verdict == word for one in findings.verdicts) for word in CLASSES}
    said = ", ".join(f"{count} {word}" for word, count in counts.items())
    few = "" if len(seeds) >= ENOUGH else f" With fewer than {ENOUGH} replicates they only show that all of it runs."
    return f"""<h1>Section VI of the paper, reproduced</h1>
<p>F. Wang, S. Cai, V. K. N. Lau, "Sequential Offloading for Distributed DNN Computation in Multiuser MEC Systems",
arXiv 2203.01005. Scenario <code>{_text(findings.preset)}</code>; {len(seeds)} replicates, each with a seed and a
placement of its own ({seeds[0]} to {seeds[-1]}). Of {len(findings.verdicts)} verdicts: {said}.</p>
<p>Each column takes another scheme for "the proposed scheme". A claim <b>holds</b> where every comparison in it surely
comes out as claimed, <b>fails</b> where one surely comes out the other way, and is <b>undecided</b> otherwise. All
comparisons of Figures 6 to 9 in a column are corrected together by Holm's method: the chance that any of them is
decided wrongly is {ALPHA:.0%} at most; in a column those of Proposition 1 are a family of their own, and Remark 1 is
counted. Brackets: the interval of the comparison that decides, at its level by Holm's method, as a ratio; above 1 is
for the claim.{few}</p>"""


def _verdict_table(findings: Findings, reading: str) -> str:
    rows: list[str] = []
    for claim in findings.claims:
        for phase in phases(claim):
            cells = "".join(_cell(findings.of(claim.id, name, reading, phase)) for name in CANDIDATES)
            about = f"{_text(claim.text)}<small>{PHASE_WORDS[phase]}</small>"
            rows.append(f'<tr><td><a href="#{claim.id}">{claim.id}</a></td><td>{about}</td>{cells}</tr>')
    heads = "".join(f"<th>{name}</th>" for name in CANDIDATES)
    table = f"<table><thead><tr><th>claim</th><th></th>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return f"<h2>Verdicts: {READING_WORDS[reading]}</h2>{table}"


def _cell(one: Verdict) -> str:
    return f'<td class="v {CLASSES[one.verdict]}">{one.verdict}<small>{interval_words(one)}</small></td>'


def _picture(path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    source = f"data:image/svg+xml;base64,{data}"
    return f'<h2>{_text(path.stem.replace("-", " ").capitalize())}</h2><img alt="{path.stem}" src="{source}">'


def _details(findings: Findings) -> str:
    return "<h2>Claim by claim</h2>" + "".join(_detail(findings, claim) for claim in findings.claims)


def _detail(findings: Findings, claim: Claim) -> str:
    own = [one for one in findings.verdicts if one.claim == claim.id and one.verdict != NOT_APPLICABLE]
    rows = "".join(_detail_row(one) for one in own)
    titles = ("scheme", "reading", "phase", "verdict", "comparisons", "what decides")
    head = "<tr>" + "".join(f"<th>{title}</th>" for title in titles) + "</tr>"
    table = f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>"
    about = f'<p id="{claim.id}"><b>{claim.id}</b> {_text(claim.text)}.<br>Test: {_text(claim.test)}</p>'
    return f"{about}<details><summary>{len(own)} verdicts and what decides them</summary>{table}</details>"


def _detail_row(one: Verdict) -> str:
    count = f"{sum(d.sign > 0 for d in one.decisions)} for, {sum(d.sign < 0 for d in one.decisions)} against, "
    count += f"{sum(d.sign == 0 for d in one.decisions)} open"
    cells = (one.candidate, READING_WORDS[one.reading], PHASE_WORDS[one.phase])
    return (
        "<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in cells) + _cell(one)
        + f"<td>{count if one.decisions else 'counted'}</td><td>{_text(one.why)}</td></tr>"
    )  # fmt: skip


def _origin(findings: Findings) -> str:
    """From a number to the command, the seeds, the scenario and the line of code."""
    seeds = ", ".join(map(str, findings.sizes.seeds))
    sources = "".join(
        f"<tr><td>{what}</td><td><code>{_place(function)}</code></td></tr>" for what, function in SOURCES.items()
    )
    code = code_hash(findings.runs)
    commands = "\n".join(f"{part.label()}  {part_name(part)}\n  {_command(part)}" for part in findings.runs)
    versions = ", ".join(f"{name} {number}" for name, number in made_with().items())
    return f"""<h2>Where every number comes from</h2>
<p>All of it: <code>{_text(findings.command)}</code> ({findings.seconds / 60:.0f} minutes,
all processes and calls together; this call took {findings.wall / 60:.1f} minutes with {findings.jobs} processes).
Every comparison is in
<code>claims.csv</code>, every curve in the CSV beside its figure, every run's numbers in <code>parts/</code>.</p>
<p>Code {code} (a hash of all modules that the runs depend on; verdicts and figures follow from the runs),
{versions}.</p>
<p>Seeds, and placement seeds: {seeds}. Replicate i has the i-th of both.</p>
<details><summary>Code</summary><table><tbody>{sources}</tbody></table></details>
<details><summary>Every run: its name, its file in <code>parts/</code>, and a command that plays it by itself: of
Figures 6 to 9 the first replicate at the first arrival probability (for others replace both seeds, or
device.arrival_prob), of Proposition 1 and Remark 1 all of it</summary>
<pre>{_text(commands)}</pre></details>
{"".join(_scenarios(findings))}"""


def _command(part: Any) -> str:
    """A command that plays a part by itself."""
    if isinstance(part, Part):
        return part.command()
    made = f"from {type(part).__module__} import {type(part).__name__}; print({part!r}.play())"
    return shlex.join(["python", "-c", made])


def _scenarios(findings: Findings) -> list[str]:
    """The complete scenario of each figure, of P1 and of R1; schemes of it share all but their hyperparameters.

    Under (1) as printed the one field `queue` differs.
    """
    found: dict[str, Any] = {}
    for part in findings.runs:
        found.setdefault(part.figure, part)
    both = "; (1) as printed: queue = 'as_printed'"
    more = {
        "6": both,
        "7": both,
        "8": f"; device.arrival_prob is varied{both}",
        "9": f"; devices is varied{both}",
        "P1": f"; discount is varied{both}",
        "R1": "; devices is varied",
    }
    return [
        f"<details><summary>Scenario of {figure if figure in ('P1', 'R1') else 'Figure ' + figure}"
        f"{more[figure]}</summary>"
        f"<pre>{_text(part.scenario().to_toml())}</pre></details>"
        for figure, part in found.items()
    ]


def _place(function: Callable[..., Any]) -> str:
    line = inspect.getsourcelines(inspect.unwrap(function))[1]
    return f"{function.__module__}:{function.__qualname__}, line {line}"


def _text(words: str) -> str:
    return html.escape(words)
