"""The tensors that cross a cut, found by their names: what the device must send so that the server can do the rest.

A cut divides the nodes of a network into those of the front half and those of the back half. It is a cut only if all
tensors that are live between the two are sent: a tensor that is forgotten would be computed again by the back half,
from whatever it can be computed from.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from partway.arguments import as_whole, named
from partway.dnn.control_flow import reads
from partway.dnn.graph import Network, profile_network
from partway.dnn.liveness import sources, views_to
from partway.dnn.profile import clean_name
from partway.errors import InputError, nearest, shown

AUTO = "auto"
"""What stands for the Pareto-optimal cuts."""
JOIN = "+"
"""Between the tensors of one cut."""
NUMBER = "cut:"
"""Before the number of a cut where it could be the name of a tensor."""
Cuts = str | int | Iterable[str | int]


@dataclass(frozen=True)
class Boundary:
    """A cut of a network.

    number   of the cut in the network's profile; None for a cut that the profile does not list
    tensors  names of the tensors that cross it, the newest first
    macs     multiply-accumulates of the front and of the back half
    kept     outputs of the network that the front half gives: views of an input that does not cross
    """

    number: int | None
    tensors: tuple[str, ...]
    macs: tuple[int, int]
    kept: tuple[str, ...]

    @property
    def after(self) -> str:
        """The names of its tensors."""
        return JOIN.join(self.tensors)


def boundaries(network: Network, cuts: Cuts = AUTO, tensor_dtype: str | None = None) -> tuple[Boundary, ...]:
    """The cuts that are asked for.

    cuts          "auto": those that are Pareto-optimal between input and output. Or one or more of: a number in the
                  network's profile, such as 34, "34" or "cut:34"; a name of a tensor; the names of several tensors that
                  cross together, joined by "+" as in a profile
    tensor_dtype  the data type in which real numbers are sent, for "auto"; None: each in its own

    Raises InputError for an unknown number or name, for tensors that are not a cut, and if "auto" finds none.
    """
    given: Any = [cuts] if isinstance(cuts, str) or as_whole(cuts) is not None else cuts
    words: list[Any] = list(given) if isinstance(given, Iterable) and not isinstance(given, bytes) else []
    if not words or not all(isinstance(word, str) or as_whole(word) is not None for word in words):
        raise InputError(f"{named('cuts')} must be 'auto', or numbers of cuts or names of tensors, got {shown(cuts)}")
    if words == [AUTO]:
        return _pareto_optimal(network, tensor_dtype)
    if AUTO in words and not _tensor(network, AUTO):
        raise InputError(f"{named('cuts')} must be 'auto' alone, or numbers of cuts or names of tensors")
    return tuple(dict.fromkeys(_asked(network, word) for word in words))


def _pareto_optimal(network: Network, tensor_dtype: str | None) -> tuple[Boundary, ...]:
    optimal = profile_network(network).pareto_optimal(tensor_dtype or "fp32")[1:-1]
    found = [offered(network, i) for i, keep in enumerate(optimal, 1) if keep]
    if not found:
        raise InputError("no cut between input and output sends fewer bits than the input; name one by its tensors")
    return tuple(found)


def offered(network: Network, number: int) -> Boundary:
    """The cut of that number in the network's profile; 0 is the input, which is none."""
    return _boundary(network, network.positions[number - 1].tensors, number)


def _asked(network: Network, word: str | int) -> Boundary:
    """The cut of that number or name. A word that could be either of two cuts is refused."""
    text = word if isinstance(word, str) else f"{NUMBER}{word}"
    if text.startswith(NUMBER):
        return _numbered(network, text.removeprefix(NUMBER))
    if not text.isdecimal():
        return _named(network, text)
    if not _tensor(network, text):
        return _numbered(network, text)
    tensor, count = _named(network, text), len(network.positions)
    if tensor.number == int(text) or not 0 < int(text) <= count:
        return tensor
    other = "" if tensor.number is None else f"{NUMBER}{tensor.number} or "
    raise InputError(f"'{text}' is both a tensor and the number of another cut; write {other}{NUMBER}{text}")


def _numbered(network: Network, text: str) -> Boundary:
    count = len(network.positions)
    if not (text.isdecimal() and 0 < int(text) <= count):
        raise InputError(f"cuts have numbers from 1 to {count}, as `partway profile` lists them, got {shown(text)}")
    return offered(network, int(text))


def _named(network: Network, word: str) -> Boundary:
    """The cut of that name; names in the file come before those in the profile, which may be cleaned."""
    raw = [JOIN.join(position.tensors) for position in network.positions]
    clean = [cut.after for cut in profile_network(network).cuts[1:-1]]
    is_tensor = word in _names(network)
    for names in (raw,) if is_tensor else (raw, clean):
        if word in names:
            return offered(network, names.index(word) + 1)
    words = [word] if is_tensor or _tensor(network, word) else word.split(JOIN)
    given = tuple(dict.fromkeys(_known_tensor(network, name) for name in words))
    if len(given) == 1:
        for number, position in enumerate(network.positions, 1):
            if position.tensors[0] == given[0]:
                return offered(network, number)
    return _asked_for(network, given)


def _asked_for(network: Network, given: Sequence[str]) -> Boundary:
    """The cut where the tensors `given` are ready; all that are live there must be named, or one alone."""
    source, shown = sources(network.nodes, network.inputs), JOIN.join(given)
    sent = {source.get(name, name) for name in given}
    if sent <= set(network.inputs):
        raise InputError(f"'{shown}' is not a cut: it is an input, and nothing is left for the device")
    front = ancestors(network, sent)
    live = live_tensors(network, front)
    if len(given) > 1 and set(live) != sent:
        raise InputError(f"'{shown}' is not a cut: all that is live there is {JOIN.join(live)}")
    if not ancestors(network, network.outputs, live) - front:
        raise InputError(f"'{shown}' is not a cut: nothing is left for the server")
    for name in live:
        if name not in network.tensors:
            raise InputError(f"'{shown}' is not a cut: the size of '{name}' depends on the data")
    numbers = (i for i, position in enumerate(network.positions, 1) if set(position.tensors) == set(live))
    return _boundary(network, live, next(numbers, None))


def _known_tensor(network: Network, word: str) -> str:
    if name := _tensor(network, word):
        return name
    raise InputError(f"the network has no tensor '{word}'{nearest(word, _names(network))}")


def _tensor(network: Network, word: str) -> str | None:
    """The tensor of that name, or of that name as a profile writes it."""
    names = _names(network)
    return word if word in names else next((name for name in names if clean_name(name) == word), None)


def _names(network: Network) -> list[str]:
    """Names of the tensors that depend on the inputs."""
    return [*network.inputs, *(name for node in network.nodes for name in node.output if name)]


def ancestors(network: Network, names: Collection[str], given: Collection[str] = ()) -> frozenset[int]:
    """Indices of the nodes that compute the tensors `names` from the inputs and the tensors `given`."""
    missing, found = set(names).difference(given), set[int]()
    for index in reversed(range(len(network.nodes))):
        if not missing.isdisjoint(network.nodes[index].output):
            missing.update(name for name in reads(network.nodes[index]) if name not in given)
            found.add(index)
    return frozenset(found)


def live_tensors(network: Network, front: Collection[int]) -> tuple[str, ...]:
    """The tensors that are live when the nodes with the indices `front` have run, the newest first.

    They are read by another node, or are outputs of the network of which no live tensor is a view. In place of a view
    of an input it is the input, in place of a dequantised tensor the quantised one.
    """
    made = {name: index for index, node in enumerate(network.nodes) for name in node.output if name}
    source, views = sources(network.nodes, network.inputs), views_to(network.nodes, network.outputs)
    ready = {name for name, index in made.items() if index in front}
    wanted = {name for index, node in enumerate(network.nodes) if index not in front for name in reads(node)}
    live = wanted & (ready | set(network.inputs))
    early = (name for name in network.outputs if name in ready and source.get(name) not in network.inputs)
    sent = {source.get(name, name) for name in live.union(name for name in early if views[name].isdisjoint(live))}
    return tuple(sorted(sent, key=lambda name: (-made.get(name, -1), name)))


def _boundary(network: Network, tensors: Sequence[str], number: int | None) -> Boundary:
    crossing = set(tensors)
    made = {name for node in network.nodes for name in node.output}
    outputs = [name for name in network.outputs if name in made]
    kept = tuple(name for name in outputs if not _from(network, name, crossing))
    front = ancestors(network, [*tensors, *kept])
    back = ancestors(network, [name for name in outputs if name not in kept], tensors)
    macs = sum(network.work[index] for index in front), sum(network.work[index] for index in back)
    return Boundary(number, tuple(tensors), macs, kept)


def _from(network: Network, name: str, crossing: Collection[str]) -> bool:
    """Whether the tensor can be computed from those that cross, without an input that does not."""
    needed = {name}.union(*(reads(network.nodes[index]) for index in ancestors(network, [name], crossing)))
    return needed.isdisjoint(set(network.inputs).difference(crossing))
