"""What users import as `partway.NAME` is a promise."""

import sys
from pathlib import Path

import pytest

import partway
from partway.errors import InputError

RUN = {
    "Scenario",
    "load",
    "compare",
    "evaluate",
    "cut",
    "split",
    "sweep",
    "summarise",
    "draw",
    "lower_bound",
    "InputError",
}
"""To run comparisons, evaluate agents, read and draw results, cut and split a network, and catch a user's errors."""
WRITE = {
    *("SCHEMES", "Scheme", "record", "uniform", "most_startable"),
    *("DeviceController", "Device", "DeviceView", "DeviceAction"),
    *("ServerController", "Server", "ServerView", "ServerAction"),
    *("Channel", "Traffic", "Station"),
}
"""To write a policy, a channel or traffic."""


def test_what_is_exported_is_what_users_need():
    assert set(partway.__all__) == RUN | WRITE
    assert [name for name in partway.__all__ if not hasattr(partway, name)] == []


def test_no_module_hides_an_export():
    """After `import partway.NAME`, `partway.NAME` is the module: no module may have the name of an export."""
    modules = {path.stem for path in Path(partway.__file__).parent.iterdir()}
    assert modules & set(partway.__all__) == set()


def test_all_exports_can_be_imported_without_the_extra_onnx(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.delitem(sys.modules, "partway.dnn.split", raising=False)
    names: dict[str, object] = {}
    exec("from partway import *", names)
    assert set(partway.__all__) <= set(names)
    with pytest.raises(InputError, match=r"pip install 'partway\[onnx\]'"):
        partway.split("network.onnx", 1)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("drain", "; did you mean 'most_startable'?"), ("compair", "; did you mean 'compare'?"), ("x", "")],
)
def test_a_name_that_is_not_there_has_the_nearest_one_as_a_hint(name: str, hint: str):
    with pytest.raises(AttributeError) as raised:
        getattr(partway, name)
    assert str(raised.value) == f"module 'partway' has no attribute '{name}'{hint}"
