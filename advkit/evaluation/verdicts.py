"""From the verdicts of a logits file to accuracies with their intervals."""

from __future__ import annotations

from advkit.artifacts import identity
from advkit.artifacts.hdf5 import ROBUST, Logits
from advkit.artifacts.record import Record
from advkit.artifacts.rows import argmax
from advkit.formulas.stats import wilson
from advkit.formulas.threat import parse_eps


def accuracy_after(logits: Logits) -> dict[str, float]:
    """Return the robust accuracy left after each attack, in order."""
    if logits.broken_by is None:
        return {}
    left = {}
    for number, name in enumerate(logits.attacks):
        # Broken by a later attack means standing after this one.
        standing = (logits.broken_by == ROBUST) | (logits.broken_by > number)
        left[name] = float(standing.double().mean())
    return left


def figures(logits: Logits) -> Record:
    """Return the accuracies of a logits file with their 95 % Wilson intervals, for its record.

    `accuracy_after` is the robust accuracy left after each attack. Without labels (out of
    distribution) accuracies are None; without an attack the robust ones are.
    """
    config, n = logits.info["config"], len(logits.labels)
    row: Record = {"attack": config["attack"], "n": n}
    row |= {"clean_accuracy": None, "clean_ci95": None}
    row |= {"robust_accuracy": None, "ci95": None}
    if "eps" in config:
        threat = parse_eps(config["eps"], None)  # what was done is reported, however large
        row |= {"norm": config["norm"], "eps": threat, "eps_text": config["eps"]}
    loss = identity.as_meant(config).get("loss")
    row |= {"loss": loss} if loss else {}
    # Labels of -1: data of other classes, for which no answer is right.
    if bool((logits.labels >= 0).all()):
        clean = int((argmax(logits.clean) == logits.labels).sum())
        row |= {"clean_accuracy": clean / n, "clean_ci95": list(wilson(clean, n))}
    if logits.broken_by is not None:
        robust = int((logits.broken_by == ROBUST).sum())
        row |= {"robust_accuracy": robust / n, "ci95": list(wilson(robust, n))}
        row["accuracy_after"] = accuracy_after(logits)
        row["zero_gradient"] = logits.info.get("zero_gradient")
    return row
