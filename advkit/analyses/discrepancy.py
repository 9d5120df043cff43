"""LTD's discrepancy G(Z) from an oracle distribution, and Theorem 1's condition, by temperature."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from advkit import registry
from advkit.analyses.drawing.panels import curve, layer
from advkit.analyses.gathering.rows import require_labels, rows_of
from advkit.analyses.statistics.scores import median
from advkit.analyses.statistics.simulate import simulate as simulated
from advkit.artifacts.document import aligned
from advkit.artifacts.hdf5 import Logits
from advkit.artifacts.result import Number, Result
from advkit.artifacts.soft_labels import SoftLabels
from advkit.data import folder
from advkit.errors import InputError, MismatchError, UsageError, brief
from advkit.formulas.losses import log_softmax
from advkit.options import parse_temperatures
from advkit.runtime import reading

KINDS = ("labels", "logits")
EXAMPLE = "runs/*/best.labels-*.h5"
OVERLAY = True
ALONE = "simulate"
LIMITS = {
    "temperatures": "[1e-6, 1e6]",
    "epsilon": "(0, 0.5)",
    "alpha": "(0, 1e6]",
    "classes": "[2, 1e6]",
    "share": "[0, 1]",
}


class Row(NamedTuple):
    """G(Z) at one temperature, and Theorem 1's condition from the one before."""

    temperature: float
    discrepancy: float
    previous: float | None = None
    condition_rhs: float | None = None
    least_oracle_mass: float | None = None
    holds: float | None = None


def discrepancy(oracle: Tensor, log_p: Tensor) -> Tensor:
    """Return KL(oracle ‖ p) per example, (B,), in nats: the summand of G(Z).

    Args:
        oracle: (B, C), rows summing to 1.
        log_p: (B, C) log-probabilities.

    Source: LTD, eq. 7.
    """
    # xlogy is 0 at 0: a class without mass adds nothing to the oracle's entropy, and no NaN.
    gap: Tensor = torch.special.xlogy(oracle, oracle) - oracle * log_p
    return gap.sum(1)


def condition(p_low: Tensor, p_high: Tensor) -> Tensor:
    """Return the right-hand side of Theorem 1's condition, (B,).

    |log(q₂/q₁) / log(p₂/p₁)| with p the true class's probability at the lower (1) and the higher
    (2) temperature and q = 1 − p all others together; the theorem is stated for two classes.
    Temperature t₂ is better for an example if y₁/y₂ of the oracle is at most this.

    Args:
        p_low: true class's probability at t₁, (B,), above one half.
        p_high: the same at t₂ > t₁.

    >>> p = torch.tensor([0.999, 0.80], dtype=torch.float64)
    >>> q = torch.tensor([0.99, 0.75], dtype=torch.float64)
    >>> [round(value, 2) for value in condition(p, q).tolist()]
    [254.43, 3.46]

    Source: LTD, eq. 12. The paper gives 3.88 for the second example, which is a slip.
    """
    return condition_of_logs(p_low.log(), (-p_low).log1p(), p_high.log(), (-p_high).log1p())


def condition_of_logs(log_p1: Tensor, log_q1: Tensor, log_p2: Tensor, log_q2: Tensor) -> Tensor:
    """Return the same from log p and log q = log(1 − p), which a confident teacher needs."""
    return ((log_q2 - log_q1) / (log_p2 - log_p1)).abs()


def read_oracle(path: Path, classes: Sequence[str]) -> dict[str, Tensor]:
    """Read how people labelled images: path → distribution (C,) float64.

    The file is CSV with a column `path` and one column of counts for each class.

    Raises:
        InputError: missing, not such a table, or a row without a positive count.
        MismatchError: its classes are others.
    """
    try:
        table = list(csv.DictReader(io.StringIO(reading.text(path), newline="")))
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as CSV: {brief(error)}") from None
    if not table or "path" not in table[0]:
        raise InputError(f"{path}: not an oracle table: it needs the column path and the classes")
    if None in table[0]:  # where csv puts cells beyond the header
        raise InputError(f"{path}: line 2 is longer than the header")
    columns = [name for name in table[0] if name != "path"]
    if sorted(columns) != sorted(classes):
        raise MismatchError(
            f"{path}: classes {brief(', '.join(columns[:4]))}…, not {', '.join(classes[:4])}…"
        )
    oracle = {}
    for number, row in enumerate(table, start=2):
        try:
            counts = torch.tensor([float(row[name]) for name in classes], dtype=torch.float64)
        except (TypeError, ValueError):
            raise InputError(f"{path}: line {number} holds something that is no count") from None
        if not bool((counts >= 0).all()) or not 0 < float(counts.sum()) < math.inf:
            raise InputError(f"{path}: line {number} has no positive count")
        if row["path"] in oracle:
            raise InputError(f"{path}: line {number} names {brief(row['path'])} again")
        oracle[row["path"]] = counts / counts.sum()
    return oracle


def joined(artifact: Logits | SoftLabels, oracle: str, data: str | None) -> Tensor:
    """Return the oracle's row for each example of a file, (N, C) float64, joined by image path.

    Raises:
        UsageError: no `--data folder:DIR` to take the paths from.
        MismatchError: an image has no row in the oracle, or the folder is another one.
    """
    name, where = registry.split_path(data or "")
    if name != "folder" or where is None:
        raise UsageError("--oracle joins by image path: give --data folder:DIR too")
    source = artifact.info["parents"][-1]
    split = source["split"]
    paths = folder.paths(
        Path(where),
        split,
        test_fraction=source.get("test_fraction"),
        skip_broken="broken" in source,
    )
    table = read_oracle(Path(oracle), artifact.info["data"]["classes"])
    if len(artifact.index) and int(artifact.index.max()) >= len(paths):
        raise MismatchError(f"{where}: {len(paths)} {split} images, the file names more")
    wanted = [paths[place] for place in artifact.index.tolist()]
    names = artifact.info["data"]["classes"]
    for path, label in zip(wanted, artifact.labels.tolist(), strict=True):
        if label >= 0 and path.split("/")[-2] != names[label]:  # SPLIT/CLASS/FILE or CLASS/FILE
            raise MismatchError(
                f"{where}: {path} stands where the file has an image of class {names[label]}: "
                "another folder than the file was made from"
            )
    missing = [path for path in wanted if path not in table]
    if missing:
        raise MismatchError(
            f"{oracle}: no row for {len(missing)} of {len(wanted)} images, first {missing[0]}"
        )
    return torch.stack([table[path] for path in wanted])


def analyze(
    inputs: Sequence[Logits | SoftLabels],
    *,
    oracle: str | None = None,
    data: str | None = None,
    temperatures: str = "1,1.5,2,2.5,3,4,5,6,7,8,10,12,15,20,50",
    simulate: Literal["binary", "dirichlet"] | None = None,
    epsilon: float | None = None,
    alpha: float | None = None,
    classes: int | None = None,
    share: float | None = None,
    gamma: Literal["fixed", "uniform"] | None = None,
) -> Result:
    """Measure G(Z) at each temperature, and Theorem 1 from each temperature to the next.

    Without an oracle G needs the true labels as one-hot oracle (it is then the negative
    log-likelihood), and the condition is given as its right-hand side and the least mass that an
    oracle must put off the true class for it to hold; medians over the examples whose true class
    keeps more than half the mass at both temperatures, as the theorem assumes.

    Args:
        oracle: CSV of people's labels: column path, a column of counts for each class.
        data: folder:DIR that the file's images came from, to join by path.
        temperatures: T, apart by commas.
        simulate: the paper's simulation instead of files.
        epsilon: mass that a one-hot row keeps off its class in a simulation, 1e-4 if not given.
        alpha: of the Dirichlet oracle, 0.0005 if not given.
        classes: of the Dirichlet simulation, 10 if not given.
        share: of ambiguous examples in the binary simulation, 0.03 if not given.
        gamma: of the binary simulation: fixed values, or uniform in [0, 0.1]; fixed if not given.

    Raises:
        InputError, MismatchError, UsageError: see `read_oracle` and `joined`.

    Source: LTD, Definition 1, Theorem 1 and appendix C.
    """
    named = {"epsilon": epsilon, "alpha": alpha, "classes": classes, "share": share}
    given = {name: value for name, value in {**named, "gamma": gamma}.items() if value is not None}
    if simulate is not None:
        return simulated(simulate, given)
    for name in given:
        raise UsageError(f"--{name} is a simulation's: give --simulate binary or dirichlet too")
    (artifact,) = inputs
    if isinstance(artifact, Logits):
        require_labels(artifact, "discrepancy")
    grid = parse_temperatures(temperatures)
    people = joined(artifact, oracle, data) if oracle is not None else None
    rows = _rows(artifact, grid, people)
    best = min(rows, key=lambda row: row.discrepancy)
    numbers: dict[str, Number] = {
        "n": len(artifact.labels),
        "oracle": "people" if people is not None else "labels",
        "discrepancy": next((row.discrepancy for row in rows if row.temperature == 1), None),
        "best_discrepancy": best.discrepancy,
        "best_temperature": best.temperature,
    }
    picture = curve(
        grid,
        {"G(Z)": [row.discrepancy for row in rows]},
        xlabel="temperature (no unit)",
        ylabel="discrepancy (nats)",
        logx=True,
    )
    shared = layer(
        grid,
        [row.discrepancy for row in rows],
        xlabel="temperature (no unit)",
        ylabel="discrepancy G(Z) (nats)",
        logx=True,
    )
    text = aligned([Row._fields, *rows])
    return Result(numbers, Row._fields, rows, (picture,), text=text, overlay=(shared,))


def _rows(
    artifact: Logits | SoftLabels, grid: Sequence[float], people: Tensor | None
) -> tuple[Row, ...]:
    total = dict.fromkeys(grid, 0.0)
    count = 0
    sides: dict[float, list[Tensor]] = {t: [] for t in grid}
    masses = []
    for logits, y, places in rows_of(artifact):
        if people is not None:
            wanted = people[places]
        else:
            wanted = torch.nn.functional.one_hot(y, logits.shape[1]).double()
        masses.append(wanted.gather(1, y[:, None]).squeeze(1))
        for t in grid:
            log_p = log_softmax(logits.double() / t)
            total[t] += float(discrepancy(wanted, log_p).sum())
            # log(1 − p) as a sum over the other classes: of a sure teacher p rounds to 1.
            rest = log_p.scatter(1, y[:, None], -math.inf).logsumexp(1)
            sides[t].append(torch.stack([log_p.gather(1, y[:, None]).squeeze(1), rest]))
        count += len(y)
    mass = torch.cat(masses)
    rows = [Row(grid[0], total[grid[0]] / count)]
    for before, t in pairwise(grid):
        low, high = torch.cat(sides[before], 1), torch.cat(sides[t], 1)
        rows.append(Row(t, total[t] / count, before, *_step(low, high, mass, people is not None)))
    return tuple(rows)


def _step(low: Tensor, high: Tensor, mass: Tensor, people: bool) -> list[float | None]:
    """Return median right-hand side, median least mass, and where it holds with an oracle, if any.

    `low` and `high` are (2, N): log p of the true class and log of all others together.
    """
    half = math.log(0.5)
    assumed = (low[0] > half) & (high[0] > half) & (high[0] < low[0])
    if not bool(assumed.any()):
        return []
    rhs = condition_of_logs(*low[:, assumed], *high[:, assumed])
    least = 1 / (1 + rhs)
    holds = float((1 - mass[assumed] >= least).double().mean()) if people else None
    medians = [median(values) for values in (rhs, least)]
    return [*(value if math.isfinite(value) else None for value in medians), holds]
