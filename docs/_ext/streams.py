"""What a cell prints in several pieces is one text."""

from typing import Any

from myst_nb.core import render
from sphinx.application import Sphinx

_merged_by_name = render.coalesce_streams


def joined(outputs: list[Any]) -> list[Any]:
    """Outputs of a cell, in which consecutive pieces of the same stream are one.

    IPython hands on what a command prints in pieces of 100 bytes, and myst-nb ends each piece with a new line.
    """
    whole: list[Any] = []
    for output in outputs:
        last = whole[-1] if whole else None
        if last and output["output_type"] == "stream" == last["output_type"] and output["name"] == last["name"]:
            last["text"] += output["text"]
        else:
            whole.append(output)
    return whole


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    render.coalesce_streams = lambda outputs: _merged_by_name(joined(outputs))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
