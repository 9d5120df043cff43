"""t-SNE of outputs, and of ADR's labels beside one-hot ones, clean and under attack."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from advkit.analyses.drawing.clouds import cloud
from advkit.analyses.gathering.rows import conditions, require_labels
from advkit.analyses.statistics.neighbours import agreement, trustworthiness
from advkit.analyses.statistics.scores import averaged
from advkit.artifacts.hdf5 import Logits
from advkit.artifacts.result import Number, Panel, Result
from advkit.errors import InputError, UsageError
from advkit.formulas.information import TOP, jensen_shannon
from advkit.images.split import first
from advkit.labels.adr import rectify

LIMITS = {
    "tau": "[1e-6, 1e6]",
    "lambda": "[0, 1]",
    "perplexity": "[1, 1e6]",
    "limit": "[1, 1e6]",
    "seed": "[0, 4294967295]",
}
KINDS = ("logits",)
_LEAST = 5
"""Examples below which there is nothing to see."""
_NEIGHBOURS = 5
_TITLES = {"outputs": "outputs", "adr": "ADR labels"}


@dataclass(frozen=True)
class Examples:
    """The examples that are embedded: their places in the split (N,), y (N,), condition → z."""

    index: Tensor
    y: Tensor
    z: Mapping[str, Tensor]


@dataclass(frozen=True)
class Plane:
    """One embedding: condition → its points (N, 2), class → the point (2,) of its one-hot label."""

    name: str
    every: Tensor
    points: Mapping[str, Tensor]
    corners: Mapping[int, Tensor]
    numbers: Mapping[str, Number]


def analyze(
    inputs: Sequence[Logits],
    *,
    space: Literal["probabilities", "logits"] = "probabilities",
    tau: float = 2.0,
    lambda_: float = 0.95,
    perplexity: float | None = None,
    limit: int = 1000,
    seed: int = 0,
) -> Result:
    """Embed a logits file's outputs in the plane, clean and adversarial ones together.

    A second embedding holds the labels that ADR would make of the same outputs (the model as its
    own teacher), and each class's one-hot label. An attack moves no one-hot label, so what can
    be asked is how far it moves the others: `outputs_shift` and `adr_shift` are mean total
    variation distances between clean and adversarial; `adr_to_adversarial` and
    `onehot_to_adversarial` are mean Jensen–Shannon divergences in nats from the label (ADR's of
    the clean image) to the output under attack. Of each embedding: t-SNE's own KL divergence,
    its trustworthiness, and `agreement`, the mean share of an example's nearest neighbours of the
    same condition that are of its class. t-SNE keeps neighbours, not distances: sizes of clusters
    and gaps between them mean nothing.

    Args:
        space: of the outputs: softmax probabilities, or logits less their mean.
        tau: temperature of ADR's labels.
        lambda_: trust λ of ADR's labels.
        perplexity: of t-SNE; 30, or a third of the examples if that is less.
        limit: first N examples, class balanced.
        seed: of t-SNE.

    Raises:
        InputError: fewer than 5 examples, no labels, or all outputs equal.
        UsageError: an impossible option.

    Source: van der Maaten and Hinton, JMLR 2008, by scikit-learn; ADR, equations 3 to 5.
    """
    (logits,) = inputs
    examples = _chosen(logits, limit)
    perplexity = _require_possible(len(examples.y), tau, lambda_, perplexity)
    names = [str(name) for name in logits.info["data"]["classes"]]
    numbers: dict[str, Number] = {
        "n": len(examples.y),
        "examples": len(logits.labels),
        "space": space,
        "tau": tau,
        "lambda": lambda_,
        "perplexity": perplexity,
        "neighbours": _neighbours(len(examples.y)),
    }
    planes = []
    for name, points in _spaces(examples, space, tau, lambda_).items():
        if bool((points == points[0]).all()):
            raise InputError(f"{logits.path}: all {_TITLES[name]} are equal: nothing to embed")
        planes.append(_plane(name, points, examples, perplexity, seed))
        numbers |= planes[-1].numbers
    numbers |= _shifts(examples, tau, lambda_)
    table = tuple(row for plane in planes for row in _rows(plane, examples))
    panels = tuple(panel for plane in planes for panel in _panels(plane, examples, names))
    return Result(numbers, ("space", "condition", "example", "class", "x", "y"), table, panels)


def tsne(points: Tensor, perplexity: float, seed: int) -> tuple[Tensor, float]:
    """Return points (M, C) in the plane, (M, 2) float64, and the KL divergence that is left."""
    from sklearn.manifold import TSNE  # seconds to import
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # the order of sums, hence the picture, goes by the thread count
        fit = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit(points.numpy())
    return torch.from_numpy(fit.embedding_).double(), float(fit.kl_divergence_)


def _chosen(logits: Logits, limit: int) -> Examples:
    y = require_labels(logits, "embedding")
    rows = first(y, limit)
    if len(rows) < _LEAST:
        raise InputError(f"{logits.path}: embedding needs {_LEAST} examples, not {len(rows)}")
    z = {name: values[rows].double() for name, values in conditions(logits).items()}
    return Examples(logits.index[rows], y[rows], z)


def _require_possible(n: int, tau: float, lambda_: float, perplexity: float | None) -> float:
    """Return the perplexity, options checked."""
    if tau <= 0:
        raise UsageError(f"--tau {tau:g} is not > 0")
    if not 0 <= lambda_ <= 1:
        raise UsageError(f"--lambda {lambda_:g} is not [0, 1]")
    if perplexity is None:
        return min(30.0, (n - 1) / 3)  # t-SNE takes 3 · perplexity of n − 1 neighbours
    if not 1 <= perplexity < n:
        raise UsageError(f"--perplexity {perplexity:g}: at least 1 and below the {n} examples")
    return perplexity


def _neighbours(n: int) -> int:
    return min(_NEIGHBOURS, (n - 1) // 2)


def _spaces(examples: Examples, space: str, tau: float, lambda_: float) -> dict[str, Tensor]:
    """Return what is embedded together: all conditions in turn, and behind ADR's the one-hot."""
    # A shift common to all logits changes no probability, so that it is to move no point either.
    outputs = [
        z.softmax(1) if space == "probabilities" else z - z.mean(1, keepdim=True)
        for z in examples.z.values()
    ]
    labels = [rectify(z, examples.y, tau, lambda_) for z in examples.z.values()]
    onehot = F.one_hot(torch.unique(examples.y), outputs[0].shape[1]).double()
    return {"outputs": torch.cat(outputs), "adr": torch.cat([*labels, onehot])}


def _plane(name: str, points: Tensor, examples: Examples, perplexity: float, seed: int) -> Plane:
    every, kl = tsne(points, perplexity, seed)
    n, k = len(examples.y), _neighbours(len(examples.y))
    # What lies behind the conditions are one-hot labels; among outputs there are none.
    parts = dict(zip(examples.z, torch.split(every, n), strict=False))
    present = torch.unique(examples.y).tolist()
    corners = dict(zip(present, every[n * len(parts) :], strict=False))
    numbers: dict[str, Number] = {
        f"{name}_kl_divergence": kl,
        f"{name}_trustworthiness": trustworthiness(points, every, k),
    }
    for condition, part in parts.items():
        numbers[f"{name}_{condition}_agreement"] = agreement(part, examples.y, k)
    return Plane(name, every, parts, corners, numbers)


def _shifts(examples: Examples, tau: float, lambda_: float) -> dict[str, Number]:
    """Return how far the attack moves outputs and labels, and what it leaves between them."""
    if "adversarial" not in examples.z:
        return {}
    p, q = (z.softmax(1) for z in examples.z.values())
    clean, attacked = (rectify(z, examples.y, tau, lambda_) for z in examples.z.values())
    onehot = F.one_hot(examples.y, p.shape[1]).double()
    return {
        **averaged("outputs_shift", (p - q).abs().sum(1) / 2, 1.0),
        **averaged("adr_shift", (clean - attacked).abs().sum(1) / 2, 1.0),
        **averaged("adr_to_adversarial", jensen_shannon(clean, q), TOP),
        **averaged("onehot_to_adversarial", jensen_shannon(onehot, q), TOP),
    }


def _rows(plane: Plane, examples: Examples) -> Iterator[tuple[str | float | None, ...]]:
    index, y = examples.index.tolist(), examples.y.tolist()
    for condition, part in plane.points.items():
        for row, label, place in zip(index, y, part.tolist(), strict=True):
            yield plane.name, condition, row, label, *place
    for label, corner in plane.corners.items():
        yield plane.name, "onehot", None, label, *corner.tolist()


def _panels(plane: Plane, examples: Examples, names: Sequence[str]) -> Iterator[Panel]:
    for condition, part in plane.points.items():
        yield cloud(
            part,
            examples.y,
            examples.z[condition].argmax(1) != examples.y,
            plane.every,
            names,
            title=f"{_TITLES[plane.name]}, {condition}",
            corners=plane.corners,
        )
