"""Captions of figures for LaTeX."""

from partway.figures.layout import PanelFigure
from partway.figures.style import outside_mathematics

SPECIAL = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "✕": r"$\times$",
    "²": r"$^2$",
    "†": r"\textdagger{}",
    "|": r"\textbar{}",
    "…": r"\dots{}",
    "►": r"$\triangleright$",
    "▸": r"$\triangleright$",
    "◂": r"$\triangleleft$",
    "▲": r"$\triangle$",
    "▼": r"$\bigtriangledown$",
    "◇": r"$\diamond$",
}
"""Characters that are commands of LaTeX, or that its standard fonts lack, and what prints them."""


def figure_float(name: str, figure: PanelFigure) -> str:
    """A LaTeX figure of NAME.pdf at its size, with its caption; one of two columns is a figure*."""
    kind = "figure" if figure.columns == 1 else "figure*"
    lines = (
        rf"\begin{{{kind}}}",
        r"  \centering",
        rf"  \includegraphics{{{name}.pdf}}",
        rf"  \caption{{{outside_mathematics(figure.caption, latex)}}}",
        rf"  \label{{fig:{name}}}",
        rf"\end{{{kind}}}",
    )
    return "\n".join(lines) + "\n"


def latex(text: str) -> str:
    """Text that LaTeX prints as it is."""
    return "".join(SPECIAL.get(character, character) for character in text)
