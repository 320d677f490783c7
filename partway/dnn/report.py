"""A profile for the terminal: the table of its cuts, and sentences on what the table shows."""

import numpy as np
from rich.console import Console

from partway.dnn.profile import Profile
from partway.formatting import prefixed
from partway.text_tables import Grid, Sentence


def report(profile: Profile, tensor_dtype: str, console: Console) -> None:
    """Print the table of the cuts, with the times of the layers if the profile has them, and the sentences.

    tensor_dtype  "fp32", "fp16" or "uint8", data type in which tensors are sent
    """
    console.print(_table(profile, tensor_dtype))
    for sentence in sentences(profile, tensor_dtype):
        console.print(Sentence(sentence))


def _table(profile: Profile, tensor_dtype: str) -> Grid:
    """One row per distinct cut."""
    title = f"{profile.name}: cuts, tensors sent as {tensor_dtype}"
    table = Grid(title, keys=2)
    table.add_column("cut", "right")
    table.add_column("after", name=True)
    times = () if profile.seconds is None else ("segment [ms]", "elapsed [ms]")
    for header in ("work done [MAC]", "work left", "sends [bit]", *times):
        table.add_column(header, "right")
    table.add_column("Pareto-optimal")
    bits, share, pareto_optimal = profile.bits(tensor_dtype), profile.share(), profile.pareto_optimal(tensor_dtype)
    milliseconds = _times(profile.seconds, rows := _distinct(profile, tensor_dtype))
    for i, timed in zip(rows, milliseconds, strict=True):
        numbers = (prefixed(profile.cuts[i].macs), f"{share[i]:.1%}", prefixed(bits[i]))
        cells = (str(i), profile.cuts[i].after, *numbers, *timed, "yes" if pareto_optimal[i] else "")
        table.add_row(*cells, style="bold" if pareto_optimal[i] else "dim")
    return table


def _times(seconds: np.ndarray | None, rows: list[int]) -> list[tuple[str, ...]]:
    """For every row the time since the row above and since the input [ms]; nothing without measured times."""
    if seconds is None:
        return [()] * len(rows)
    elapsed = 1e3 * seconds[rows]
    segments = np.diff(elapsed, prepend=0.0)
    return [(f"{segment:.3f}", f"{total:.3f}") for segment, total in zip(segments, elapsed, strict=True)]


def _distinct(profile: Profile, tensor_dtype: str) -> list[int]:
    """Cuts that differ from the one before in work or bits, and the output."""
    macs, bits = [cut.macs for cut in profile.cuts], profile.bits(tensor_dtype)
    last = len(macs) - 1
    return [i for i in range(last + 1) if i in (0, last) or macs[i] != macs[i - 1] or bits[i] != bits[i - 1]]


def sentences(profile: Profile, tensor_dtype: str) -> list[str]:
    """The size of the network, the omitted rows, the Pareto-optimal cuts, the fit of the proportional law."""
    shape, count = "x".join(str(size) for size in profile.input_shape) or "of one number", len(profile.cuts)
    others = [
        f"'{tensor.name}' of {tensor.elements} element{'s' * (tensor.elements != 1)}"
        for tensor in profile.cuts[0].tensors[1:]
    ]
    inputs = f"inputs '{profile.cuts[0].tensors[0].name}' {shape}, {', '.join(others)}" if others else f"input {shape}"
    size = f"{profile.name} ({profile.source}): {inputs}, {_counted(profile.macs)}."
    omitted = count - len(_distinct(profile, tensor_dtype))
    return [
        size,
        *([f"{omitted} of {count} cuts are omitted: same work and bits as the row above."] if omitted else []),
        _pareto_sentence(profile, tensor_dtype),
        "The proportional law of the paper, bits in proportion to the work left, fits with "
        f"R^2 = {profile.proportionality(tensor_dtype):.2f} (1: exact fit; below 0: worse than a constant).",
    ]


def _counted(macs: int) -> str:
    return f"{prefixed(macs)} multiply-accumulate{'s' * (macs != 1)}"


def _pareto_sentence(profile: Profile, tensor_dtype: str) -> str:
    bits, share = profile.bits(tensor_dtype), profile.share()
    inner = [i for i in np.flatnonzero(profile.pareto_optimal(tensor_dtype)) if 0 < i < len(profile.cuts) - 1]
    if not inner:
        return "No inner cut sends fewer bits than the input: send the input, or run the whole network locally."
    cuts = "; ".join(
        f"cut {i} after {100 * (1 - share[i]):.4g} % of the work, {100 * bits[i] / bits[0]:.3g} % of the input's bits"
        for i in inner
    )
    return f"Pareto-optimal between input and output (no other cut sends as few bits after as little work): {cuts}."
