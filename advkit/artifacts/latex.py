"""Tables as LaTeX for `\\\\input`: booktabs, nothing else needed."""

from __future__ import annotations

import re

from advkit.artifacts.document import Cell, Document, Sheet, one_line

ESCAPES = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "−": "$-$",
    "×": r"$\times$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "–": "--",
    "—": "---",
    "…": r"\dots{}",
    "√": r"$\surd$",
    "·": r"$\cdot$",
    "Δ": r"$\Delta$",
    "∞": r"$\infty$",
    "’": "'",
    "�": "?",
    '"': "''",
    "`": r"\textasciigrave{}",
    "α": r"$\alpha$",
    "β": r"$\beta$",
    "γ": r"$\gamma$",
    "ε": r"$\varepsilon$",
    "λ": r"$\lambda$",
    "ρ": r"$\rho$",
    "τ": r"$\tau$",
    "σ": r"$\sigma$",
    "ℓ": r"$\ell$",
}
PREAMBLE = r"% needs \usepackage{booktabs,graphicx}; \input this file where the tables go"
FIT = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
"""Shrinks a table that is wider than the text, and leaves others as they are."""


def latex(document: Document) -> str:
    """Return the tables of a document, each a `table` environment with its notes below."""
    sheets = [
        _sheet(sheet, document.notes, _label(document, number))
        for number, sheet in enumerate(document.sheets, start=1)
    ]
    return "\n\n".join([f"{PREAMBLE}\n% {one_line(document.title)}", *sheets]) + "\n"


def escape(text: str) -> str:
    r"""Return text that LaTeX prints as it is.

    >>> escape("50 % ± 1_a")
    '50 \\% $\\pm$ 1\\_a'
    """
    return "".join(ESCAPES.get(char, char) for char in one_line(text))


def _label(document: Document, number: int) -> str:
    r"""Return what `\ref` calls a table: by the document's title, numbered from the second one."""
    words = re.sub(r"[^a-z0-9]+", "-", document.title.lower()).strip("-")
    return f"tab:{words}" + (f"-{number}" if number > 1 else "")


def _sheet(sheet: Sheet, notes: tuple[str, ...], label: str) -> str:
    columns = "l" * sheet.words + "r" * (len(sheet.head) - sheet.words)
    lines = [r"\begin{table}[t]", r"\centering", rf"\caption{{{escape(sheet.caption)}}}"]
    lines += [rf"\label{{{label}}}"]
    lines += [r"\small", r"\setlength{\tabcolsep}{4pt}", FIT, rf"\begin{{tabular}}{{{columns}}}"]
    lines += [r"\toprule", *_spans(sheet), _row([escape(text) for text in sheet.head]), r"\midrule"]
    for place, row in enumerate(sheet.rows):
        lines += [r"\midrule"] if place in sheet.breaks else []
        lines.append(_row([_cell(cell) for cell in row]))
    lines += [r"\bottomrule", r"\end{tabular}}"]
    remarks = [escape(note) for note in (*sheet.notes, *notes)]
    if remarks:
        below = r"\\ {}".join(f"{note}." for note in remarks)  # {}: a [ would be an argument
        lines += ["", r"\smallskip", rf"\parbox{{\linewidth}}{{\footnotesize {below}}}"]
    return "\n".join([*lines, r"\end{table}"])


def _spans(sheet: Sheet) -> list[str]:
    """Return the headings over columns, with a rule under each; nothing if there are none."""
    if not any(text for text, _ in sheet.spans):
        return []
    cells, rules, start = [], [], 1
    for text, count in sheet.spans:
        if text:
            cells.append(rf"\multicolumn{{{count}}}{{c}}{{{escape(text)}}}")
            # (lr) trims the rule at both ends: neighbouring headings stay apart.
            rules.append(rf"\cmidrule(lr){{{start}-{start + count - 1}}}")
        else:
            cells += [""] * count
        start += count
    return [_row(cells), "".join(rules)]


def _row(cells: list[str]) -> str:
    # A cell that begins with [ or * would be an argument of the \\ before it.
    return " & ".join(f"{{}}{c}" if c[:1] in ("[", "*") else c for c in cells) + r" \\"


def _cell(cell: Cell) -> str:
    return rf"\textbf{{{escape(cell.text)}}}" if cell.bold else escape(cell.text)
