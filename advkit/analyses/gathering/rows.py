"""What analyses ask of one artifact: its logits piece by piece, its verdicts, its data and run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from advkit.artifacts import provenance
from advkit.artifacts.hdf5 import ROBUST, Logits
from advkit.artifacts.rows import Rows, argmax, height, piecewise
from advkit.artifacts.soft_labels import SoftLabels
from advkit.errors import InputError, printable
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
        # Soft labels hold several views of an example: one after the other, each a batch of rows.
        piece = artifact.piece(here)
        for view in range(piece.logits.shape[1]):
            yield piece.at(rows - start, torch.full_like(rows, view)), y, rows


def conditions(logits: Logits) -> dict[str, Rows]:
    """Return the logits (N, C) of each condition there is: clean, and adversarial if attacked."""
    logits_of = {"clean": logits.clean}
    if logits.adversarial is not None:
        logits_of["adversarial"] = logits.adversarial
    return logits_of


def unlabelled(logits: Logits) -> int:
    """Return how many examples have no label: their classes are none of the model's."""
    return int((logits.labels < 0).sum())


def is_outside(logits: Logits) -> bool:
    """Whether a file is of out-of-distribution data, none of whose classes is the model's.

    Raises:
        InputError: some of its examples are of the model's classes.
    """
    count, n = unlabelled(logits), len(logits.labels)
    if 0 < count < n:
        raise InputError(
            f"{logits.path}: {n - count} of {n} examples are of the model's own classes, and are "
            "not out of distribution: give a set of other classes alone"
        )
    return count > 0


def require_labels(logits: Logits, what: str) -> Tensor:
    """Return the labels (N,).

    Raises:
        InputError: an example is of none of the model's classes.
    """
    count, n = unlabelled(logits), len(logits.labels)
    if count:
        whose = "this file is" if count == n else f"{count} of {n} examples are"
        raise InputError(f"{logits.path}: {what} needs labels; {whose} out-of-distribution")
    return logits.labels


def right(logits: Logits, what: str) -> Tensor | None:
    """Return which examples are right, (N,) bool: `clean`, or `robust` under the file's attack.

    None where it is unknown: without labels, or without an attack.
    """
    if unlabelled(logits):
        return None
    if what == "clean":
        return argmax(logits.clean) == logits.labels
    return None if logits.broken_by is None else logits.broken_by == ROBUST


def hits(logits: Logits, what: str) -> int | None:
    """Return how many examples are right, `clean` or `robust`; None where it is unknown."""
    verdicts = right(logits, what)
    return None if verdicts is None else int(verdicts.sum())


def data_digest(logits: Logits) -> str | None:
    """Return the digest of the data that a file judges; None if it names none."""
    return provenance.data_digest(logits.info["parents"])


def run_name(path: str) -> str:
    """Return the name of the run folder in which a file lies."""
    return printable(Path(path).resolve().parent.name)


def entropies(logits: Rows) -> Tensor:
    """Return the entropy of softmax(z) per example, (N,) float64, in nats; piece by piece."""
    return piecewise(lambda z: entropy(log_softmax(z.double()).exp()), logits)
