"""Settings as data: docs/data/search/CANDIDATE-STAGE.csv.gz, one row for every setting that was tried."""

import csv
import gzip
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from partway.paper.search.score import likely, score
from partway.paper.search.space import OWN_STEPS, STOPPING_RULE, STOPS, Range, Setting, space
from partway.scenario.loading import load
from partway.schemes import hyperparameters

ROOT = Path(__file__).parents[2]
DATA = ROOT / "docs" / "data" / "search"
RESULTS = ("setting", "replicates", "score", "likely")
"""Columns in front; then z of the weakest comparison of every claim, then the parameters."""


@dataclass(frozen=True)
class Tried:
    """A setting that was tried: on so many replicates, with z of the weakest comparison of every claim."""

    setting: Setting
    replicates: int
    weakest: dict[str, float]

    def score(self) -> float:
        """See `partway.paper.search.score`."""
        return float(score(self._arrays())[0])

    def likely(self) -> int:
        """How many claims are likely to hold."""
        return int(likely(self._arrays())[0])

    def _arrays(self) -> dict[str, np.ndarray]:
        return {name: np.array([z]) for name, z in self.weakest.items()}


def path_of(candidate: str, stage: str) -> Path:
    """The file of a stage."""
    return DATA / f"{candidate}-{stage}.csv.gz"


def write(candidate: str, stage: str, tried: Sequence[Tried]) -> Path:
    """Write all settings of a stage; equal rows make equal bytes."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    claims, names = list(tried[0].weakest), list(space(candidate))
    writer.writerow((*RESULTS, *claims, *names))
    for number, one in enumerate(tried, 1):
        setting = dict(one.setting)
        head = number, one.replicates, f"{one.score():.4f}", one.likely()
        weakest = (f"{one.weakest[name]:.3g}" for name in claims)
        writer.writerow((*head, *weakest, *(setting[name] for name in names)))
    path = path_of(candidate, stage)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.getvalue().encode(), 9, mtime=0))
    return path


def read(candidate: str, stage: str) -> list[Tried]:
    """The settings of a stage, to the digits that were written. Raises FileNotFoundError if it has not been run."""
    known = space(candidate)
    with gzip.open(path_of(candidate, stage), "rt", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    claims = [name for name in rows[0] if name not in (*RESULTS, *known)]
    return [
        Tried(
            tuple((name, _parsed(one, row[name])) for name, one in known.items()),
            int(row["replicates"]),
            {name: float(row[name]) for name in claims},
        )
        for row in rows
    ]


def _parsed(one: Range, text: str) -> Any:
    """A value of a parameter."""
    return next(value for value in one.choices if str(value) == text) if one.choices else float(text)


def preset_value(name: str) -> Any:
    """What the preset `paper` has for a parameter."""
    if name == OWN_STEPS:
        return False
    if name == STOPPING_RULE:
        known = hyperparameters("parametric")
        return next(rule for rule, fields in STOPS.items() if all(known[field] == fields[field] for field in fields))
    if name.startswith("schemes."):
        _, scheme, field = name.split(".")
        known = hyperparameters(scheme)
        return known.get(field, known.get(field.partition("_")[2]))  # `device_step` is `step` unless it is set
    value: Any = load("paper").model_dump()
    for word in name.split("."):
        value = value[word]
    return value


def short_claim(name: str) -> str:
    """The name of a claim and its phase on an axis."""
    return name.replace("from_start", "empty").replace("after_training", "trained")
