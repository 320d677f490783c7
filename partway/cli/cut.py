"""`partway cut`: from its flags to an answer, and the files of the answer."""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from partway.bound.lower_bound import Bound, NoBound, lower_bound
from partway.cli.terminal import Screen
from partway.dnn.profile import Profile, read_profile, write_profile
from partway.errors import InputError, shown
from partway.experiments.comparison import OnProgress
from partway.figures import cut_map
from partway.planner import report as cut_report
from partway.planner.break_even import break_even
from partway.planner.context import DeviceContext, device_context, with_task
from partway.planner.evaluation import PolicyOutcome, policy_outcome, run_scheme, single_tasks
from partway.planner.plan import PlanRule, exact_rule, learned_rule
from partway.planner.report import CutResult
from partway.scenario.loading import load
from partway.simulation.rollout import Run

EXTREMES = {"local": "all local", "full": "all remote"}
"""What the recommendation is measured against, by scheme."""


def question(options: argparse.Namespace) -> DeviceContext:
    """The device in its world. An ONNX file becomes a profile on the way."""
    for flag, value, low, high in (("blocks", options.blocks, 10, 1_000_000), ("seeds", options.seeds, 1, 1000)):
        if not low <= value <= high:
            raise InputError(f"--{flag} must be between {low} and {high}, got {value}")
    with tempfile.TemporaryDirectory() as folder:
        profile, name = _profile(options, Path(folder))
        task = {
            "kind": "layers",
            "profile": name,
            "tensor_dtype": options.tensor_dtype,
            "input_bits": options.input_bits,
        }
        asked = with_task(load(options.scenario, options.set), {key: one for key, one in task.items() if one})
        return device_context(asked, profile, options.device, options.distance_m)


def _profile(options: argparse.Namespace, folder: Path) -> tuple[Profile, str]:
    """The network, and the name under which a scenario finds its profile."""
    if Path(options.model).suffix.lower() != ".onnx":
        if options.shape:
            raise InputError(f"{shown(options.model)}: --shape needs an .onnx file")
        return read_profile(options.model), options.model
    from partway.dnn import graph as profile  # the rest works without the extra `onnx`

    found = profile.profile_model(options.model, shapes=dict(options.shape))
    path = folder / "network.csv"
    path.write_text(write_profile(found), encoding="utf-8")
    return found, str(path)


def blocks(options: argparse.Namespace) -> int:
    """Blocks to play, of all policies together."""
    return options.blocks * (1 + len(EXTREMES))


def solve(options: argparse.Namespace, target: DeviceContext, on_progress: OnProgress) -> CutResult:
    """Plan, measure, and look for the bandwidths where sending pays."""
    found, why = _bound(options, target)
    scheme, seeds = ("priced" if found is None else "oracle"), range(options.seeds)
    played = run_scheme(target, scheme, seeds, options.blocks, found, on_progress)
    rule, source = _rule(target, found, played, f"{why}learned in {options.blocks} blocks by priced")
    rows = [policy_outcome(target, "recommended", played, rule.price)]
    rows += [_extreme(options, target, scheme, rule, on_progress) for scheme in EXTREMES]
    return CutResult(target, rule, source, break_even(target.device, rule.price), single_tasks(target, rule), rows)


def _bound(options: argparse.Namespace, target: DeviceContext) -> tuple[Bound | None, str]:
    """The exact solution, or None and why it is not used."""
    if options.learn:
        return None, ""
    try:
        return lower_bound(target.world), ""
    except NoBound as why:
        return None, f"{why}: "


def _rule(target: DeviceContext, found: Bound | None, played: Run, learned: str) -> tuple[PlanRule, str]:
    if found is None:
        return learned_rule(target, played), learned
    return exact_rule(target, found), "planned with the scenario's statistics, by the lower bound's price and tables"


def _extreme(
    options: argparse.Namespace, target: DeviceContext, scheme: str, rule: PlanRule, on_progress: OnProgress
) -> PolicyOutcome:
    played = run_scheme(target, scheme, range(options.seeds), options.blocks, None, on_progress)
    return policy_outcome(target, EXTREMES[scheme], played, rule.price)


def write(options: argparse.Namespace, answer: CutResult, text: str, folder: Path) -> None:
    """Map, profile, table, JSON, and the scenario to go on with."""
    name = f"{answer.target.profile.name}.csv"
    (folder / name).write_text(write_profile(answer.target.profile), encoding="utf-8")
    (folder / "cut.json").write_text(text, "utf-8")
    task: dict[str, Any] = {"kind": "layers", "profile": str(options.out / name), "tensor_dtype": options.tensor_dtype}
    if options.input_bits:
        task["input_bits"] = options.input_bits
    (folder / "scenario.toml").write_text(with_task(answer.target.scenario, task).to_toml(), "utf-8")
    with (folder / "table.txt").open("w", encoding="utf-8") as table:
        Screen(file=table, width=100).print(cut_report.details_table(answer))
    cut_map.write(answer, folder)
