"""Run docs/tour.ipynb in an empty folder and write down what its cells give.

The cells are plain Python but for two words of Jupyter's: a line of magic (`%matplotlib inline`)
says nothing here, and a line that begins with `!` goes to the shell.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict

PAGE = Path(__file__).parents[2] / "docs" / "tour.ipynb"
SECONDS = 300
"""A command of the shell takes at most this long."""


class Cell(TypedDict):
    """A cell as the notebook's file has it."""

    cell_type: str
    source: list[str]
    outputs: list[dict[str, object]]
    execution_count: int | None


class Notebook(TypedDict):
    """A notebook's file, as far as it is used here."""

    cells: list[Cell]


def read(path: Path) -> Notebook:
    """Read a notebook."""
    notebook: Notebook = json.loads(path.read_text(encoding="utf-8"))
    return notebook


def run(notebook: Notebook) -> Iterator[tuple[Cell, list[dict[str, object]]]]:
    """Run the code cells in order, in the current folder, and yield each with its outputs.

    Raises:
        Exception: whatever a cell raises.
        subprocess.CalledProcessError: a command of the shell failed.
    """
    names: dict[str, object] = {"__name__": "__main__"}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            yield cell, list(_outputs("".join(cell["source"]), names))


def _outputs(source: str, names: dict[str, object]) -> Iterator[dict[str, object]]:
    lines = [line for line in source.splitlines() if not line.startswith("%")]
    commands = [line[1:] for line in lines if line.startswith("!")]
    said, value = io.StringIO(), None
    if commands:
        done = subprocess.run(
            "\n".join(["set -eo pipefail", *commands]),
            shell=True,
            executable="bash",
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            timeout=SECONDS,
        )
        said.write(done.stdout)
    else:
        body = ast.parse("\n".join(lines)).body
        last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
        with contextlib.redirect_stdout(said):
            exec(compile(ast.Module(body, []), str(PAGE), "exec"), names)
            if isinstance(last, ast.Expr):
                value = eval(compile(ast.Expression(last.value), str(PAGE), "eval"), names)
    if said.getvalue():
        yield {"name": "stdout", "output_type": "stream", "text": _lines(said.getvalue())}
    if value is not None:
        yield {"data": _shown(value), "metadata": {}, "output_type": "display_data"}


def _shown(value: object) -> dict[str, object]:
    """Return a value as a notebook shows it: a figure as its picture."""
    save = getattr(value, "savefig", None)
    if save is None:
        return {"text/plain": _lines(repr(value))}
    picture = io.BytesIO()
    save(picture, format="png", dpi=80)
    return {"image/png": base64.b64encode(picture.getvalue()).decode(), "text/plain": ["Figure"]}


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def main() -> int:
    """Run the notebook and write it anew, with its outputs."""
    notebook = read(PAGE)
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "tour"  # its name stands in records
        folder.mkdir()
        os.chdir(folder)
        try:
            for number, (cell, outputs) in enumerate(run(notebook), 1):
                cell["outputs"], cell["execution_count"] = outputs, number
        finally:
            os.chdir(here)
    text = json.dumps(notebook, indent=1, ensure_ascii=False)
    PAGE.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
