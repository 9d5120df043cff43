"""Entropy in and out of distribution: AUROC and FPR95 of each model and each other data set."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from advkit.analyses.drawing.histograms import counted, edges, highest, histogram
from advkit.analyses.gathering import naming, protocol
from advkit.analyses.gathering.entries import entries_of
from advkit.analyses.gathering.pairs import Model, models
from advkit.analyses.gathering.rows import entropies
from advkit.analyses.statistics.scores import averaged, fpr95, told_apart
from advkit.artifacts.document import aligned
from advkit.artifacts.hdf5 import Logits
from advkit.artifacts.result import Histogram, Number, Result
from advkit.artifacts.rows import piecewise
from advkit.errors import UsageError
from advkit.formulas.losses import log_softmax

LIMITS = {"bins": "[1, 1e5]"}
KINDS = ("logits",)
COMPARES = True
NEEDS = ("outside",)
_SHOWN = (
    "model",
    "data",
    "in_entropy",
    "out_entropy",
    "auroc",
    "auroc_low",
    "auroc_high",
    "fpr95",
    "confidence_auroc",
    "confidence_fpr95",
)


def analyze(inputs: Sequence[Logits], *, bins: int = 30) -> Result:
    """Compare the clean outputs on a model's own test data with those on other data.

    Files of one checkpoint belong together; those without labels are out of distribution. For
    each model and each other data set: mean entropies with normal 95 % intervals (`in_entropy`,
    `out_entropy`), `auroc` (chance that an example from outside has more entropy than one from
    inside, ties halved) with its 95 % interval, and `fpr95` (share of the outside taken for
    inside where at least 95 % of the inside are kept); `confidence_auroc` and `confidence_fpr95`
    score by one minus the top probability instead. The settings in which models differ, their
    methods' own and their attacks aside, are named: `differs`.

    Args:
        bins: bins of the histograms over [0, ln C].

    Raises:
        InputError: no file out of distribution, or none in.
        MismatchError: a file without a partner of the same checkpoint.
        UsageError: no bin.

    Source: ADR, section 3.2 and figure 1; Hendrycks and Gimpel, ICLR 2017.
    """
    if bins < 1:
        raise UsageError("--bins must be at least 1")
    every = models(inputs)
    compared = [_compared(model, bins) for model in every]
    differing = _differing(every)
    groups = [group for of_model, _ in compared for group in of_model]
    figures = tuple(figure for _, figure in compared)
    top = max(map(highest, figures))  # one axis for all models
    flat = [_flat(group) for group in groups]
    numbers: dict[str, Number] = {"models": len(compared), "pairs": len(groups)}
    if len(groups) == 1:
        numbers |= groups[0]
    table = aligned([_SHOWN, *([row[name] for name in _SHOWN] for row in flat)])
    told = protocol.words(differing, [model.name for model in every])
    return Result(
        numbers,
        tuple(flat[0]),
        tuple(tuple(row.values()) for row in flat),
        tuple(histogram(figure, "entropy (nats)", top) for figure in figures),
        figures,
        "\n".join([table, *([f"note: not the same for all models: {told}"] if told else [])]),
        tuple(groups),
        more={"differs": protocol.plain(differing)},
    )


def _differing(every: Sequence[Model]) -> dict[str, list[object]]:
    """Return the settings in which models differ, with how many examples of each other data set."""
    known = []
    for model, entry in zip(every, entries_of([model.inside for model in every]), strict=True):
        counts = {f"n of {name}": len(file.labels) for name, file in model.outside}
        known.append(protocol.answered(entry) | protocol.plainly(counts))
    return protocol.differences(known)


def _compared(model: Model, bins: int) -> tuple[list[dict[str, Number]], Histogram]:
    """Return a group for each other data set, and the histogram of all."""
    top = math.log(model.inside.clean.shape[1])
    inside, own = _scores(model.inside), model.inside.info["data"]["name"]
    counts = {f"in: {own}": counted(inside[0], bins, top)}
    groups = []
    for name, file in model.outside:
        outside = _scores(file)
        counts[f"out: {name}"] = counted(outside[0], bins, top)
        groups.append(
            {
                "model": model.name,
                "data": name,
                "own_data": own,
                "checkpoint": model.checkpoint,
                "in_n": len(inside[0]),
                "out_n": len(outside[0]),
                "max_entropy": top,
                **averaged("in_entropy", inside[0], top),
                **averaged("out_entropy", outside[0], top),
                **_apart("", inside[0], outside[0]),
                **_apart("confidence_", inside[1], outside[1]),
            }
        )
    areas = ", ".join(f"{group['auroc']:.3f}" for group in groups)
    title = f"{naming.beside(model.inside, model.name)}, AUROC {areas}"
    return groups, Histogram(title, edges(bins, top), counts)


def _scores(logits: Logits) -> tuple[Tensor, Tensor]:
    """Return entropy and one minus the top probability of clean outputs, (N,) each."""
    # 1 − exp(log p) by expm1: where p rounds to 1, doubts would all be 0 and tie.
    doubt = piecewise(lambda z: -log_softmax(z.double()).amax(1).expm1(), logits.clean)
    return entropies(logits.clean), doubt


def _apart(prefix: str, inside: Tensor, outside: Tensor) -> dict[str, Number]:
    area = told_apart(f"{prefix}auroc", inside, outside)
    return {**area, f"{prefix}fpr95": fpr95(inside, outside)}


def _flat(group: dict[str, Number]) -> dict[str, Number]:
    """Return a group with each interval as two cells, NAME_low and NAME_high."""
    cells: dict[str, Number] = {}
    for key, value in group.items():
        if key.endswith("_ci95"):
            ends = value if isinstance(value, list) else (None, None)
            cells |= dict(zip((f"{key[:-5]}_low", f"{key[:-5]}_high"), ends, strict=True))
        else:
            cells[key] = value
    return cells
