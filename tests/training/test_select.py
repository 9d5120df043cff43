"""`--select`: what chooses a checkpoint, against exact robustness of linear nets; its records."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from advkit.analyses.gathering.recipes import Run
from advkit.config.resolve import differences, resolve
from advkit.errors import UsageError
from advkit.formulas.threat import Threat
from advkit.training import manifest, stage
from advkit.training.run import train
from advkit.training.run_folder import RunFolder
from advkit.training.selection import Validation, apgd_hits, better, margin_hits
from tests.softlabels.test_labelling import Heard

EPS = 0.02


class Linear(nn.Module):
    def __init__(self, classes, pixels=12):
        super().__init__()
        draw = torch.Generator().manual_seed(classes)
        self.w = nn.Parameter(torch.randn(classes, pixels, generator=draw))

    def forward(self, x):
        return (x.flatten(1) - 0.5) @ self.w.T


def case(classes, count=64):
    """Images far from the box's edge, labelled by the net itself but for some."""
    draw = torch.Generator().manual_seed(9)
    raw = torch.randint(64, 192, (count, 3, 2, 2), generator=draw, dtype=torch.uint8)
    model = Linear(classes)
    x = raw.float() / 255
    with torch.no_grad():
        labels = model(x).argmax(1)
    labels[::8] = (labels[::8] + 1) % classes
    images = SimpleNamespace(
        labels=labels, classes=[str(c) for c in range(classes)], batch=lambda rows: raw[rows]
    )
    return model, images, x


def exact(model, x, labels):
    """How many no perturbation within EPS can turn: each margin beyond EPS times its l1 norm."""
    with torch.no_grad():
        z, w = model(x), model.w
        count = 0
        for row, y in zip(z, labels.tolist(), strict=True):
            gaps = [
                float(row[y] - row[c]) - EPS * float((w[y] - w[c]).abs().sum())
                for c in range(len(row))
                if c != y
            ]
            count += min(gaps) > 0
    return count


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_apgd_finds_what_is_there(classes):
    """With four classes its three targets are all there are."""
    model, images, x = case(classes)
    generator = torch.Generator().manual_seed(3)
    found = apgd_hits(model, images, torch.arange(len(x)), Threat("linf", EPS), generator)
    robust = exact(model, x, images.labels)
    assert 5 < robust < 50
    assert found == robust


def test_the_margin_finds_what_is_there():
    model, images, x = case(2)
    generator = torch.Generator().manual_seed(3)
    found = margin_hits(model, images, torch.arange(len(x)), Threat("linf", EPS), generator)
    assert found == exact(model, x, images.labels)


@pytest.mark.parametrize("select", ["pgd", "margin", "apgd"])
def test_what_is_measured(select):
    model, images, x = case(4)
    every = torch.arange(len(x))
    chosen = Validation(images, every, Threat("linf", EPS), 0, select=select)
    figures = chosen.measure(model, lambda: None)
    extra = [] if select == "pgd" else [f"{select}_accuracy"]
    assert list(figures) == ["clean_accuracy", "robust_accuracy", *extra]
    assert figures == chosen.measure(model, lambda: None)  # its noise is named, too
    for name in extra:
        assert exact(model, x, images.labels) / 64 <= figures[name] <= figures["clean_accuracy"]


@pytest.mark.parametrize(
    ("threat", "select", "words"),
    [
        (None, "pgd", "validation"),
        (Threat("linf", 0.1), "pgd", "validation PGD-10"),
        (Threat("linf", 0.1), "apgd", "validation PGD-10 and APGD"),
        (Threat("linf", 0.1), "margin", "validation PGD-10 and margin"),
    ],
)
def test_what_is_measured_has_words(threat, select, words):
    images = SimpleNamespace()
    assert Validation(images, torch.arange(3), threat, 0, select=select).what == words


def test_what_chooses():
    low = {"clean_accuracy": 0.9, "robust_accuracy": 0.6, "apgd_accuracy": 0.3}
    high = {"clean_accuracy": 0.8, "robust_accuracy": 0.5, "apgd_accuracy": 0.4}
    assert better(high, low)
    assert not better(low, high)
    assert not better(low, low)
    for figures in (low, high):
        del figures["apgd_accuracy"]
    assert better(low, high)
    for figures in (low, high):
        del figures["robust_accuracy"]
    assert better(low, high)
    assert better(high, None)


FLAGS = {
    "data": "digits", "limit": 60, "val_size": 20, "batch_size": 20, "width": 2, "epochs": 3,
    "attack_steps": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run in which the margin prefers the second epoch, and PGD the last."""
    figures = [(0.8, 0.30, 0.20), (0.8, 0.40, 0.35), (0.8, 0.50, 0.25)]
    left = itertools.chain(figures)

    def measure(self, model, between):
        names = ("clean_accuracy", "robust_accuracy", "margin_accuracy")
        return dict(zip(names, next(left), strict=True))

    chosen = resolve(({**FLAGS, "select": "margin"}, "flag"))
    folder = RunFolder(tmp_path_factory.mktemp("select") / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Validation, "measure", measure)
        train(chosen, folder, device=torch.device("cpu"), threads=1, reporter=Heard())
    return folder, chosen.settings


def test_the_record_tells_both_figures(finished):
    folder, settings = finished
    (record,) = stage._records(folder, settings, "best")
    assert (record["epoch"], record["margin_accuracy"], record["robust_accuracy"]) == (
        2, 0.35, 0.40,
    )  # fmt: skip
    (last,) = stage._records(folder, settings, "final")
    assert (last["margin_accuracy"], last["robust_accuracy"]) == (0.25, 0.50)


def test_curves_mark_the_epoch_that_was_kept(finished):
    folder, _ = finished
    run = Run("run", "run", None, 0, tuple(folder.rows()))
    assert run.best(False) == (1, "val_robust", 0.40)


def test_an_edited_figure_is_found(finished):
    folder, _ = finished
    rows = folder.rows()
    said = {"best": {"epoch": 2, "clean_accuracy": 0.8, "robust_accuracy": 0.4}}
    assert not manifest.agree(said, rows)
    said["best"]["margin_accuracy"] = 0.35
    assert manifest.agree(said, rows)


def test_natural_training_is_selected_on_clean_accuracy():
    with pytest.raises(UsageError, match="selected on clean accuracy"):
        resolve(({"data": "digits", "method": "natural", "select": "apgd"}, "flag"))


def test_the_default_is_not_told():
    assert "select" not in resolve((FLAGS, "flag")).settings.described()
    asked = resolve(({**FLAGS, "select": "apgd"}, "flag")).settings
    assert asked.described()["select"] == "apgd"
    assert differences(resolve((FLAGS, "flag")).settings, asked) == "select: pgd -> apgd"
