"""The documentation site: `make docs`."""

import os
import sys
from importlib.metadata import version as version_of
from pathlib import Path

from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

# As in partway/program_cache.py: newer versions of XLA have no such option, and end a process that asks for it.
OLDER_GENERATOR = "--xla_cpu_use_fusion_emitters=false " if version_of("jax").startswith("0.10.") else ""

# Notebooks run in processes that inherit this environment.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # `partway` of this environment
os.environ |= {
    "COLUMNS": "100",
    "TTY_COMPATIBLE": "0",  # a kernel asks for colours; with them come progress bars, line by line
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    "JAX_PLATFORMS": os.environ.get("JAX_PLATFORMS", "cpu"),
    "JAX_COMPILATION_CACHE_DIR": str(HERE / "_build" / "jax"),  # a second build compiles nothing
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # short runs: compiling takes longer; the same numbers but for rounding
    "XLA_FLAGS": f"{OLDER_GENERATOR}--xla_cpu_parallel_codegen_split_count=1",  # for the same reason
    "XDG_CACHE_HOME": str(HERE / "_build" / "cache"),
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # else each kernel warns about a debugger that nobody uses
}

project = "Partway"
author = "The Partway authors"
copyright = f"{author}, Apache-2.0"
release = version = version_of("partway")
html_title = f"Partway {version}"
language = "en"
smartquotes = False  # values in quotation marks are to be typed as they are shown
extensions = ["myst_nb", "sphinx.ext.autodoc", "docstrings", "generated", "streams"]
exclude_patterns = ["_build", "_static", "_ext"]
nitpicky = True
INTERNAL = ("Certificate", "Placement", "Progress", "Question", "Statement", "T", "World")
"""Types in signatures of the public interface that nobody needs to make or to take apart."""
nitpick_ignore_regex = [
    ("py:.*", r"(?!partway\b).*"),  # other projects' names: their documentation is not at hand
    ("py:.*", rf"partway\..*\.({'|'.join(INTERNAL)})"),
]

# Pages
highlight_language = "none"  # a block without a language is output or a formula
myst_enable_extensions = ["dollarmath", "deflist", "attrs_inline"]
myst_heading_anchors = 4
nb_execution_mode = "force"  # a kept output could be that of another version
nb_execution_timeout = 600  # of a cell; on idle cores none takes more than half a minute
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_merge_streams = True

# Docstrings
autodoc_class_signature = "separated"
autodoc_preserve_defaults = True  # a default that is a function is shown as it is written
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
maximum_signature_line_length = 80
default_role = "literal"

# Theme
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {"top_of_page_buttons": []}
html_show_sourcelink = False
html_copy_source = False
html_use_index = False  # names of Python alone; the search finds these and all the rest

# MathJax is beside the pages (_static/mathjax): the site opens without a network.
mathjax_path = "mathjax/tex-svg.js"
mathjax3_config = {
    "options": {"enableMenu": False, "processHtmlClass": "math|output_area", "ignoreHtmlClass": ".*"},
    "svg": {"fontCache": "global"},
}
myst_update_mathjax = False


def setup(app: Sphinx) -> None:
    """Pygments has no lexer for CSV."""
    app.add_lexer("csv", TextLexer)
