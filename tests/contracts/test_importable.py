"""Names that are used from outside stay importable where they are."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path

import pytest

KEPT = (
    "advkit.labels.adr.rectify",
    "advkit.labels.smoothing.smooth",
    "advkit.labels.soft.soften",
    "advkit.attacks.pgd.pgd",
    "advkit.weights.awp.perturbed",
    "advkit.weights.ema.Ema",
    "advkit.artifacts.checkpoint.read",
    "advkit.models.load",
    "advkit.artifacts.hdf5.write_logits",
    "advkit.artifacts.hdf5.read_logits",
    "advkit.analyses.calibration.ece",
    "advkit.analyses.entropy.entropy",
    "advkit.analyses.divergence.jensen_shannon",
    "advkit.data.digits.load",
)
PACKAGE = Path(importlib.import_module("advkit").__file__).parent
CHANGES = (PACKAGE.parent / "CHANGELOG.md").read_text(encoding="utf-8")


def moved() -> list[str]:
    """Return the modules that the changelog says things moved to."""
    table = CHANGES.partition("### Where modules went")[2]
    modules = []
    for was, now in re.findall(r"^\| (`.*) \| (`.*) \|$", table, re.MULTILINE):
        names = [name.rpartition(".")[2].lstrip("_") for name in re.findall(r"`([\w.]+)`", was)]
        for target in re.findall(r"`([a-z_0-9.]+)`(?!\))", now.replace("without `_`", "")):
            modules += [target + name for name in names] if target.endswith(".") else [target]
    return modules


@pytest.mark.parametrize("name", KEPT)
def test_a_name_that_others_use_stays_where_it_is(name):
    module, _, attribute = name.rpartition(".")
    found = getattr(importlib.import_module(module), attribute)
    assert callable(found)
    assert inspect.getdoc(found)


def test_the_changelog_lists_what_stays():
    text = CHANGES.replace("and `read_logits`", "`advkit.artifacts.hdf5.read_logits`")
    assert [name for name in KEPT if f"`{name}`" not in text] == []


def test_the_changelog_says_where_modules_are():
    modules = moved()
    assert len(modules) > 50
    missing = [name for name in modules
               if not (PACKAGE / (name.replace(".", "/") + ".py")).exists()]  # fmt: skip
    assert missing == []
