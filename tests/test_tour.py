"""The notebook: its cells run in order in an empty folder, and what it shows was made so."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from tests.conftest import ROOT

PAGE = ROOT / "docs" / "tour.ipynb"
CELLS = json.loads(PAGE.read_text(encoding="utf-8"))["cells"]
CODE = [cell for cell in CELLS if cell["cell_type"] == "code"]
SILENT = {"setup", "file"}
"""Cells that show nothing: they name or write something for those that follow."""


@pytest.fixture
def tour():
    spec = importlib.util.spec_from_file_location("tour", ROOT / "tools" / "docs" / "tour.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def kinds(outputs: list[dict]) -> list[str]:
    return [kind for one in outputs for kind in one.get("data", {one["output_type"]: None})]


def test_the_notebook_runs(tour, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    monkeypatch.setenv("PATH", path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    ran = [(cell["id"], kinds(outputs)) for cell, outputs in tour.run(tour.read(PAGE))]
    assert ran == [(cell["id"], kinds(cell["outputs"])) for cell in CODE]


def test_it_is_small_whole_and_names_no_machine():
    assert PAGE.stat().st_size < 300_000
    assert [cell["execution_count"] for cell in CODE] == [*range(1, len(CODE) + 1)]
    assert {cell["id"] for cell in CODE if not cell["outputs"]} == SILENT
    pictures = [cell["id"] for cell in CODE if "image/png" in kinds(cell["outputs"])]
    assert pictures == ["calibration"]
    said = json.dumps([cell["outputs"] for cell in CODE])
    assert not [word for word in ("/tmp/", "/home/", "/root/", "Traceback") if word in said]


def test_the_runner_takes_text_values_pictures_and_commands(tour, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def cell(source: str) -> dict:
        return {"cell_type": "code", "source": source.splitlines(keepends=True)}

    sources = ["%magic\na = 1\nprint(a)", "a + 1", "!echo 3", "b = 2"]
    notebook = {"cells": [{"cell_type": "markdown", "source": ["text"]}, *map(cell, sources)]}
    got = [outputs for _, outputs in tour.run(notebook)]
    assert got == [
        [{"name": "stdout", "output_type": "stream", "text": ["1\n"]}],
        [{"data": {"text/plain": ["2"]}, "metadata": {}, "output_type": "display_data"}],
        [{"name": "stdout", "output_type": "stream", "text": ["3\n"]}],
        [],
    ]
    assert set(tour._shown(Figure())) == {"image/png", "text/plain"}
    with pytest.raises(Exception, match="exit status 3"):
        list(tour.run({"cells": [cell("!(exit 3) | cat")]}))
