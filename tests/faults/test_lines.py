"""Row 50: random command lines."""

from __future__ import annotations

import itertools
import shutil

import pytest

from tests.faults import _lines

COUNT = 40


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.faults) for seed in range(1, 5))]
)
def test_row_50_random_command_lines(server, tiny_run, tiny_logits, tmp_path, seed):
    """No exit 1, no traceback, no crash; what works on longer answers a signal."""
    shutil.copytree(tiny_run, tmp_path / "run")
    shutil.copy(tiny_logits, tmp_path / "a.h5")
    there = _lines.inputs(tmp_path)
    violations = []
    for words in itertools.islice(_lines.lines(seed, there), COUNT):
        outcome, _ = _lines.ended(server.start(*words, cwd=tmp_path))
        if fault := _lines.wrong(outcome):
            violations.append((words, fault))
    assert violations == []
