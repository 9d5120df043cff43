"""Learning curves of runs: training and validation, clean and robust, best epoch, over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from advkit.analyses.drawing import learning
from advkit.analyses.gathering import protocol
from advkit.analyses.gathering.recipes import JUDGED, SERIES, Recipe, Run, protocols, recipes
from advkit.analyses.gathering.trained import Trained
from advkit.artifacts.document import aligned
from advkit.artifacts.result import Curve, Number, Result

KINDS = ("checkpoint",)
COMPARES = True
_COLUMNS = ("recipe", "run", "seed", "epoch", "lr", "loss", *SERIES, "best", "best_ema")
_FIGURES = ("best_epoch", "best", "final", "gap")


def analyze(inputs: Sequence[Trained]) -> Result:
    """Draw the accuracies of every epoch, from `metrics.jsonl` beside checkpoints.

    Runs that differ in nothing but the seed are one recipe: its curves are the mean over seeds,
    with a band of one sample standard deviation. `gap`, robust overfitting, is the accuracy in
    validation of the best epoch less that of the last one, of each seed; a recipe's figure is the
    mean, with `_sd`. Of the weight average (`--wa`) it is `ema_gap`, and so on. A note names the
    alarms of training that a run's epochs are marked with.

    Raises:
        InputError: a run without metrics beside its checkpoint, or two runs of one seed.
    """
    gathered = recipes(inputs)
    differing = protocol.differences(protocols(gathered))
    names = [recipe.name for recipe in gathered]
    groups = [_group(recipe) for recipe in gathered]
    told = protocol.words(differing, names)
    alarms = {run.name: run.alarms() for recipe in gathered for run in recipe.runs if run.alarms()}
    notes = [f"not the same in all recipes: {told}"] if told else []
    notes += [
        f"{name.replace('_', ' ')} in {run}, first in epoch {epoch}"
        for run, rung in alarms.items()
        for name, epoch in rung.items()
    ]
    text = "\n".join([aligned(_lines(gathered, groups)), *(f"note: {note}" for note in notes)])
    numbers: dict[str, Number] = {
        "runs": sum(len(recipe.runs) for recipe in gathered),
        "recipes": len(gathered),
    }
    if len(gathered) == 1:
        numbers |= {key: value for key, value in groups[0].items() if key != "recipe"}
    return Result(
        numbers,
        _COLUMNS,
        tuple(row for recipe in gathered for row in _rows(recipe)),
        learning.panels(gathered),
        tuple(_sketch(recipe) for recipe in gathered),
        text=text,
        groups=tuple(groups),
        more={"differs": protocol.plain(differing), **({"alarms": alarms} if alarms else {})},
        brief=True,
    )


def _rows(recipe: Recipe) -> list[tuple[object, ...]]:
    """Return a row an epoch of each run."""
    rows: list[tuple[object, ...]] = []
    for run in recipe.runs:
        best = [run.best(average) for average in (False, True)]
        for place, row in enumerate(run.rows):
            accuracies = (row.get(key) for key in SERIES.values())
            marks = (None if kept is None else kept.place == place for kept in best)
            own = (recipe.name, run.name, run.seed, place + 1, row.get("lr"), row.get("loss"))
            rows.append((*own, *accuracies, *marks))
    return rows


def _group(recipe: Recipe) -> dict[str, Number]:
    """Return the figures of a recipe: of the student, and of its average where there is one."""
    group: dict[str, Number] = {
        "recipe": recipe.name,
        "seeds": len(recipe.runs),
        "epochs": recipe.epochs,
    }
    for average in (False, True):
        own = [figures for run in recipe.runs if (figures := _figures(run, average))]
        for key in _FIGURES if own else ():
            values = [figures[key] for figures in own]
            name = f"ema_{key}" if average else key
            group[name] = statistics.fmean(values)
            group[f"{name}_sd"] = statistics.stdev(values) if len(values) > 1 else None
    return group


def _figures(run: Run, average: bool) -> Mapping[str, float] | None:
    """Return best epoch, accuracy there and in the last epoch, and their gap."""
    best = run.best(average)
    if best is None:
        return None
    final = [value for value in run.curve(best.series) if value is not None][-1]
    return {
        "best_epoch": best.place + 1,
        "best": best.accuracy,
        "final": final,
        "gap": best.accuracy - final,
    }


def _lines(
    recipes: Sequence[Recipe], groups: Sequence[Mapping[str, Number]]
) -> list[tuple[str, ...]]:
    lines: list[tuple[str, ...]] = [
        ("recipe", "weights", "seeds", "epochs", "chosen by", "best epoch", "best", "final", "gap")
    ]
    for recipe, group in zip(recipes, groups, strict=True):
        for prefix, word in (("", "student"), ("ema_", "average")):
            if f"{prefix}best" not in group:
                continue
            chosen = "robust" if "val_robust" in recipe.series else "clean"
            measured = recipe.runs[0].rows[0].keys()
            chosen = next((x for x in JUDGED if f"val_{x}_accuracy" in measured), chosen)
            epoch = _spread(group, f"{prefix}best_epoch", "{:.3g}")
            shares = [_spread(group, f"{prefix}{key}", "{:.3f}") for key in _FIGURES[1:]]
            counts = (str(group["seeds"]), str(group["epochs"]))
            lines.append((recipe.name, word, *counts, chosen, epoch, *shares))
    return lines


def _spread(group: Mapping[str, Number], key: str, form: str) -> str:
    """Return a mean, and ± the sample standard deviation over seeds where there are several."""
    sd = group[f"{key}_sd"]
    mean = form.format(group[key])
    return mean if sd is None else f"{mean} ± {form.format(sd)}"


def _sketch(recipe: Recipe) -> Curve:
    """Return the validation curves, for a terminal."""
    shown = [name for name in recipe.series if name.startswith("val_")] or recipe.series
    series = {
        learning.LOOKS[name].label: tuple(
            None if point is None else point[0] for point in recipe.over_seeds(name)
        )
        for name in shown
    }
    return Curve(recipe.name, tuple(map(float, range(1, recipe.epochs + 1))), series)
