"""What the site takes from the program itself: the command line, the schemes, a result file; and how cells look."""

import argparse
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from partway.cli.main import COMMANDS, Parser, command_module
from partway.experiments.variables import VARIABLES
from partway.schemes import SCHEMES

FOLDER_LINK = re.compile(r"\[([^\]]+)\]\((?!https?:)[^)\s]*/\)")
"""A link to a folder, which only a code host can show."""


def table(header: Sequence[str], rows: Iterable[Sequence[nodes.Node]]) -> nodes.table:
    """A table of cells."""
    group = nodes.tgroup("", *(nodes.colspec(colwidth=1) for _ in header), cols=len(header))

    def row(cells: Iterable[nodes.Node]) -> nodes.row:
        return nodes.row("", *(nodes.entry("", nodes.paragraph("", "", cell)) for cell in cells))

    group += nodes.thead("", row(map(nodes.Text, header)))
    group += nodes.tbody("", *map(row, rows))
    return nodes.table("", group)


def code(text: str) -> nodes.literal:
    """Code within a line."""
    return nodes.literal(text, text)


def prose(text: str) -> nodes.inline:
    """A text in which what stands in backticks is code."""
    pieces = enumerate(text.split("`"))
    return nodes.inline("", "", *(code(piece) if number % 2 else nodes.Text(piece) for number, piece in pieces))


def block(text: str, language: str) -> nodes.literal_block:
    """A block of code."""
    return nodes.literal_block(text, text, language=language)


class CommandLine(SphinxDirective):
    """Every command with its flags and examples, from the parsers."""

    def run(self) -> list[nodes.Node]:
        return [self.section(command.name) for command in COMMANDS]

    def section(self, name: str) -> nodes.section:
        module, parser = command_module(name), Parser(prog=f"partway {name}", add_help=False)
        module.add_flags(parser)
        section = nodes.section("", nodes.title("", f"partway {name}"), ids=[f"partway-{name}"])
        self.state.document.note_implicit_target(section)
        section += [nodes.paragraph("", "", prose(text)) for text in module.DESCRIPTION.split("\n\n")]
        for group in parser._action_groups:  # argparse has no public list of them
            if group._group_actions:
                section += nodes.rubric("", (group.title or "").capitalize())
                section += nodes.definition_list("", *self.flags(parser, group._group_actions))
        section += nodes.rubric("", "Examples")
        lines = (f"# {about}\n{line}" for about, line in module.EXAMPLES.items())
        section += block("\n".join(lines), "sh")
        return section

    @staticmethod
    def flags(parser: argparse.ArgumentParser, actions: Iterable[argparse.Action]) -> Iterator[nodes.Node]:
        """A definition for each flag or argument: how it is written, and its help."""
        formatter = parser._get_formatter()
        for action in actions:
            term = nodes.term("", "", code(formatter._format_action_invocation(action)))
            text = formatter._expand_help(action) if action.help else ""
            yield nodes.definition_list_item("", term, nodes.definition("", nodes.paragraph("", "", prose(text))))


class SchemeTable(SphinxDirective):
    """The rows of `partway schemes`."""

    HEADER: ClassVar = ("scheme", "policy", "up", "down")

    def run(self) -> list[nodes.Node]:
        rows = (
            (code(name), prose(scheme.about), *(nodes.Text(str(count)) for count in scheme.signalling().values()))
            for name, scheme in SCHEMES.items()
        )
        return [table(self.HEADER, rows)]


class VariableTable(SphinxDirective):
    """The variables of a dataset of `partway.compare`."""

    def run(self) -> list[nodes.Node]:
        rows = ((code(name), prose(long_name), nodes.Text(units)) for name, (long_name, units) in VARIABLES.items())
        return [table(("variable", "meaning", "unit"), rows)]


def without_folders(app: Sphinx, page: str, source: list[str]) -> None:
    """Leave the words of links to folders."""
    source[0] = FOLDER_LINK.sub(r"\1", source[0])


def show_cells(app: Sphinx, doctree: nodes.document) -> None:
    """Show a cell that runs commands as these commands, and one that writes a file as this file."""
    for cell in doctree.findall(nodes.literal_block):
        text = cell.astext()
        if text.startswith("%%sh"):
            _replace(cell, text.partition("\n")[2], "sh")
        elif written := re.match(r"%%writefile (\S+)\n", text):
            name = written[1]
            _replace(cell, f"# {name}\n{text[written.end() :]}", "toml" if name.endswith(".toml") else "python")


def _replace(cell: nodes.literal_block, text: str, language: str) -> None:
    cell.replace_self(block(text, language))


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    for name, directive in (("commands", CommandLine), ("schemes", SchemeTable), ("variables", VariableTable)):
        app.add_directive(name, directive)
    app.connect("source-read", without_folders)
    app.connect("doctree-read", show_cells)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
