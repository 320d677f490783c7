"""`partway cite`: BibTeX entries for Partway and for the paper whose system model it simulates."""

import argparse

from partway.cli.stdout import results
from partway.provenance import version

DESCRIPTION = "Print BibTeX entries for Partway and for the paper whose system model it simulates."
EXAMPLES = {
    "Both entries": "partway cite",
    "Add them to a bibliography": "partway cite >> references.bib",
}
ENTRIES = """\
@software{{partway,
  title = {{Partway}},
  author = {{{{The Partway authors}}}},
  version = {{{version}}},
  license = {{Apache-2.0}}
}}

@article{{wang2022sequential,
  title = {{Sequential Offloading for Distributed {{DNN}} Computation in Multiuser {{MEC}} Systems}},
  author = {{Wang, Feng and Cai, Songfu and Lau, Vincent K. N.}},
  journal = {{arXiv preprint arXiv:2203.01005}},
  year = {{2022}},
  url = {{https://arxiv.org/abs/2203.01005}}
}}
"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The command has no arguments."""


def run(options: argparse.Namespace) -> None:
    """Print both entries to standard output."""
    print(ENTRIES.format(version=version()), end="", file=results())
