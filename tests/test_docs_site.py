"""The documentation site: every code block is run by somebody, docstrings become what was meant, pages need no network.

Cells of notebooks are run by `make docs`, which fails on any error and any warning.
"""

import doctest
import importlib
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from docutils import nodes

import partway
from docs._ext.docstrings import converted, entries, other_fields
from docs._ext.generated import prose
from docs._ext.streams import joined
from partway.cli.main import COMMANDS
from partway.scenario.loading import load
from partway.schemes import SCHEMES

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [
    path
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("**/*.md")))
    if not path.is_relative_to(DOCS / "_build") and not path.is_relative_to(DOCS / "_static")
]
BLOCK = re.compile(r"^```(\S*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PYTHON = {
    "README.md": "test_docs.py",
    "docs/channels.md": "test_docs.py",
    "docs/cluster.md": "test_sweep_cluster.py",
    "docs/environments.md": "test_environments_page.py",
    "docs/live.md": "test_live_inputs.py",
    "docs/network.md": "test_split.py",
}
"""Pages with blocks of Python that are no cells, and who runs these."""
CONSOLE = {"README.md", "docs/network.md"}
"""Pages with commands and their output, which test_network_page.py compares."""
SHOWN = {
    "",
    "sh",
    "csv",
    "latex",
    "{toctree}",
    "{include}",
    "{eval-rst}",
    "{literalinclude}",
    "{commands}",
    "{schemes}",
    "{variables}",
}
"""Output, shell commands (test_docs.py parses those of `partway`), what Sphinx runs, and what needs LaTeX."""


def blocks(page: Path) -> list[tuple[str, str]]:
    """(language or directive, text) of every block of code of a page."""
    return BLOCK.findall(page.read_text("utf-8"))


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_code_block_is_run(page: Path):
    text, name = page.read_text("utf-8"), name_of(page)
    for kind, content in blocks(page):
        if kind == "{code-cell}":
            assert text.startswith("---\nfile_format: mystnb\n"), "a cell is run only on a page that is a notebook"
        elif kind == "toml":
            load({"device": tomllib.loads(content)})
        elif kind == "python":
            assert name in PYTHON
        elif kind == "yaml":
            assert isinstance(yaml.safe_load(content), dict)
        elif kind == "console":
            assert name in CONSOLE
        else:
            assert kind in SHOWN, f"nobody runs this block of {kind}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_line_of_prose_becomes_a_quotation(page: Path):
    """A line that begins with the sign of an inequality would."""
    prose_lines = BLOCK.sub("", page.read_text("utf-8")).splitlines()
    assert [line for line in prose_lines if line.startswith(">")] == []


def test_what_stands_in_backticks_is_code_in_generated_tables():
    text = prose("near-optimal like `decoupled`, by a price")
    assert text.astext() == "near-optimal like decoupled, by a price"
    assert [node.astext() for node in text.findall(nodes.literal)] == ["decoupled"]


def test_what_is_printed_in_pieces_is_one_text():
    """A line whose second half comes in another piece stays a line; what stands between two texts keeps them apart."""

    def piece(name: str, text: str) -> dict[str, str]:
        return {"output_type": "stream", "name": name, "text": text}

    picture = {"output_type": "display_data"}
    pieces = [
        piece("stdout", "4  conv3   14"),
        piece("stdout", ".45 M\n"),
        picture,
        piece("stdout", "a"),
        piece("stderr", "b"),
    ]
    assert joined(pieces) == [
        piece("stdout", "4  conv3   14.45 M\n"),
        picture,
        piece("stdout", "a"),
        piece("stderr", "b"),
    ]


def test_pages_have_cells():
    """So that the test above can fail."""
    cells = {name_of(page): sum(kind == "{code-cell}" for kind, _ in blocks(page)) for page in PAGES}
    assert cells["docs/tutorials/my-policy.md"] > 5
    assert sum(count > 2 for count in cells.values()) >= 8


def test_the_call_on_the_page_of_networks_runs(capsys: pytest.CaptureFixture[str]):
    (block,) = [text for kind, text in blocks(DOCS / "network.md") if kind == "python" and "partway.cut" in text]
    exec(block, {})
    assert re.search(r"True \d+", capsys.readouterr().out)


def modules_with_examples() -> list[str]:
    found = [path for path in (ROOT / "partway").rglob("*.py") if ">>> " in path.read_text("utf-8")]
    return [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in found]


@pytest.mark.parametrize("module", modules_with_examples())
def test_examples_in_docstrings_are_right(module: str):
    results = doctest.testmod(importlib.import_module(module))
    assert results.attempted > 0
    assert results.failed == 0


def test_the_reference_documents_every_public_name():
    reference = (DOCS / "reference" / "python.md").read_text("utf-8")
    named = set(re.findall(r"^\.\. (?:auto\w+|py:data):: partway\.(\w+)$", reference, re.MULTILINE))
    assert set(partway.__all__) <= named


# Docstrings


def test_names_and_what_they_mean_become_definitions():
    lines = ["q, gain   tasks, and h", "          of this block", "warmup    blocks            name  of the run"]
    assert entries(lines) == [("q, gain", "tasks, and h of this block"), ("warmup", "blocks"), ("name", "of the run")]


def test_prose_is_escaped_and_code_is_code():
    docstring = "||theta_|| of `a_b`, 2 * 3.\n\nraises  one_error\n        in `f(*x)`"
    assert list(converted(docstring)) == [
        r"\|\|theta\_\|\| of ``a_b``, 2 \* 3.",
        "",
        "``raises``",
        r"    one\_error in ``f(*x)``",
        "",
    ]


def test_fields_that_explain_themselves_are_listed():
    @dataclass
    class Row:
        cut: int
        device_s: float

    assert other_fields(Row, "cut  its number") == ["device_s"]
    assert other_fields(len, "") == []


# The built site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `make docs` builds it."""
    out = tmp_path_factory.mktemp("site")
    flags = ["--quiet", "--fail-on-warning", "--keep-going", "--fresh-env", "--jobs", "2"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XLA_"))}
    environment["PYTHONPATH"] = str(ROOT)
    command = [sys.executable, "-m", "sphinx", *flags, str(DOCS), str(out)]
    built = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert built.returncode == 0, built.stderr
    return out


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    quiet = ["background-networking", "component-update", "sync", "quic", "gpu"]
    flags = ["--no-sandbox", "--no-first-run", *(f"--disable-{name}" for name in quiet)]
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path="/usr/bin/chromium", args=flags)
        yield chromium
        chromium.close()


@pytest.mark.slow
def test_the_site_opens_from_disk_without_a_network(site: Path, browser: Any):
    """No page asks for anything but files, and none has an error."""
    pages = sorted(path for path in site.rglob("*.html") if "_static" not in path.parts)
    assert len(pages) > 25
    page, requests, errors = browser.new_page(), list[str](), list[str]()
    page.on("request", lambda request: requests.append(request.url))
    page.on("pageerror", lambda error: errors.append(f"{page.url}: {error}"))
    page.on("requestfailed", lambda request: errors.append(request.url))
    for path in pages:
        page.goto(path.as_uri(), wait_until="load")
    page.close()
    assert len(requests) > len(pages)
    assert [url for url in requests if not url.startswith(("file://", "data:"))] == []
    assert errors == []


@pytest.mark.slow
def test_formulas_are_drawn_and_fit_a_phone(site: Path, browser: Any):
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.goto((site / "explanation" / "model.html").as_uri())
    page.wait_for_function("document.querySelectorAll('mjx-container svg').length > 20", timeout=30_000)
    assert page.locator("mjx-merror").count() == 0
    equation = page.locator("div.math mjx-container > svg").last  # those inside are parts that stretch
    assert equation.bounding_box()["height"] > 20
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.close()


@pytest.mark.slow
def test_the_reference_has_every_command_and_every_scheme(site: Path):
    reference = (site / "reference" / "command-line.html").read_text("utf-8")
    assert [one.name for one in COMMANDS if f'id="partway-{one.name}"' not in reference] == []
    assert reference.count("--precision") >= 3
    schemes = (site / "reference" / "schemes.html").read_text("utf-8")
    assert [name for name in SCHEMES if f">{name}<" not in schemes] == []
