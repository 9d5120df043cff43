"""The new objectives and inner attacks with every label source and weight space: one step each."""

from __future__ import annotations

import itertools

import pytest
import torch

from advkit import data
from tests.training.test_faithful import planted, written_labels
from tests.training.test_learner import step, trainer

OBJECTIVES = ("rslad", "ard", "score", "at", "trades", "mart")
LABELS = ("onehot", "smoothing", "adr", "soft")
MORE = {
    "n-fgsm": {"train_attack": "n-fgsm"},
    "fgsm-rs": {"train_attack": "fgsm-rs", "grad_align": 0.2},
    "awp": {"awp": 0.005, "wa": True, "grad_align": 0.2},
    "adamw": {"optimizer": "adamw", "lr": 1e-3, "clip_grad_norm": 1.0, "attack_bn": "frozen"},
}


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", "train")


@pytest.fixture(scope="module")
def labels_file(digits, tmp_path_factory):
    return written_labels(digits, tmp_path_factory.mktemp("labels") / "labels.h5")


@pytest.mark.parametrize(("objective", "labels"), [*itertools.product(OBJECTIVES, LABELS)])
def test_one_step(digits, labels_file, objective, labels):
    """Finite, with figures of what it shows, and weights that moved."""
    for name, more in MORE.items():
        soft = {"soft_labels": labels_file} if labels == "soft" else {}
        made = trainer(
            digits, method=f"{objective}+{labels}", **soft, **{"attack_steps": 1, **more}
        )
        if soft:
            planted(made, 1.0)
        before = {n: p.detach().clone() for n, p in made.learner.model.named_parameters()}
        step(made)
        now = dict(made.learner.model.named_parameters())
        assert all(bool(torch.isfinite(p).all()) for p in now.values()), name
        assert any(not torch.equal(now[n], before[n]) for n in now), name
        assert float(made.progress.sums[0]) == 20, name
