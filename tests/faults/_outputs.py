"""What the tests of outputs share: which stages they try, on what, and as whom."""

from __future__ import annotations

from pathlib import Path

import pytest

from advkit import registry
from tests.faults._pairs import STAGES

full = pytest.mark.faults
ANALYSES = registry.parts("analyses")


def mostly(*quick: str) -> pytest.MarkDecorator:
    """Try every stage in the fault table, and these in every run of the tests."""
    every = [name if name in quick else pytest.param(name, marks=full) for name in STAGES]
    return pytest.mark.parametrize("name", every)


def source(part: registry.Part, logits: Path, labels: Path, teacher: Path) -> Path:
    kinds = part.constants.get("KINDS", ("logits",))
    files = {"logits": logits, "labels": labels, "checkpoint": teacher / "best.safetensors"}
    return files[kinds[0]]


def plainly(server, command: list[object], folder: Path, *more: object):
    """Run a stage's command as a user for whom permissions count, as they do not for root."""
    return server.run(*command, *more, cwd=folder, plain=True)
