"""An artifact's logits piece by piece, and the conditions they were measured under."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from advkit.artifacts.hdf5 import Logits
from advkit.artifacts.rows import Rows, height, piecewise
from advkit.artifacts.soft_labels import SoftLabels
from advkit.errors import InputError
from advkit.formulas.information import entropy
from advkit.formulas.losses import log_softmax


def rows_of(artifact: Logits | SoftLabels) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield (logits (B, C), labels (B,), rows (B,)) piece by piece: clean ones, or all views.

    `rows` are the examples' places in the file.
    """
    step = height(artifact.clean if isinstance(artifact, Logits) else artifact.logits)
    for start in range(0, len(artifact.labels), step):
        here = slice(start, start + step)
        y = artifact.labels[here]
        rows = torch.arange(start, start + len(y))
        if isinstance(artifact, Logits):
            yield artifact.clean[here], y, rows
            continue
        piece = artifact.piece(here)
        for view in range(piece.logits.shape[1]):
            yield piece.at(rows - start, torch.full_like(rows, view)), y, rows


def conditions(logits: Logits) -> dict[str, Rows]:
    """Return the logits (N, C) of each condition there is: clean, and adversarial if attacked."""
    logits_of = {"clean": logits.clean}
    if logits.adversarial is not None:
        logits_of["adversarial"] = logits.adversarial
    return logits_of


def require_labels(logits: Logits, what: str) -> Tensor:
    """Return the labels (N,).

    Raises:
        InputError: the file holds out-of-distribution data, which has none.
    """
    if bool((logits.labels < 0).any()):
        raise InputError(f"{logits.path}: {what} needs labels; this file is out-of-distribution")
    return logits.labels


def entropies(logits: Rows) -> Tensor:
    """Return the entropy of softmax(z) per example, (N,) float64, in nats; piece by piece."""
    return piecewise(lambda z: entropy(log_softmax(z.double()).exp()), logits)
