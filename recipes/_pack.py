"""Sum up a run of study.sh in a small file: which test images were right, what its outputs are.

A verdict is a bit an image, packed (first image first, highest bit first) and in base64, so that
runs can be paired image by image without their logits files.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import advkit
from advkit.artifacts.hdf5 import ROBUST, WRONG, Logits, read_logits

Bits = NDArray[np.bool_]
BY_PGD = {
    "attacked_entropy": ("entropy", "adversarial_entropy"),
    "wrong_entropy": ("entropy", "clean_entropy_wrong"),
    "divergence": ("divergence", "divergence"),
    "attacked_ece": ("calibration", "adversarial_ece"),
    "clean_ece": ("calibration", "clean_ece"),
}
"""Figures of a net's outputs: the analysis that has each, and its name there."""


def packed(bits: Bits) -> str:
    """Return bits as base64 of bytes, the last one filled with zeros."""
    return base64.b64encode(np.packbits(bits).tobytes()).decode()


def logits_of(run: Path, point: str, attack: str) -> Path:
    """Return the one logits file of an attack on a checkpoint.

    Raises:
        SystemExit: there is none, or several.
    """
    pattern = re.compile(rf"{re.escape(f'{point}.{attack}')}[-.].*h5")
    found = [path for path in run.iterdir() if pattern.fullmatch(path.name)]
    if len(found) != 1:
        raise SystemExit(f"{run}: {len(found)} files of {attack} on {point}: wanted one")
    return found[0]


def read(run: Path, point: str, attack: str) -> Logits:
    """Return an attacked file's verdicts, in order of the images."""
    logits = read_logits(logits_of(run, point, attack), stay=True).by_index()
    if logits.broken_by is None:
        raise SystemExit(f"{logits.path}: it is not attacked")
    return logits


def examples(logits: Logits) -> str:
    """Return a digest of which images these are, and of what classes."""
    both = np.stack([logits.index.numpy(), logits.labels.numpy()]).astype("<i8")
    return hashlib.sha256(both.tobytes()).hexdigest()[:16]


def verdicts(run: Path, point: str) -> tuple[dict[str, str], int, str]:
    """Return verdicts (robust: under APGD-CE and APGD-T), how many, and of which images."""
    files = [read(run, point, attack) for attack in ("apgd-ce", "apgd-t")]
    if len({examples(logits) for logits in files}) > 1:
        raise SystemExit(f"{run}: the two attacks saw other images: attack {point} anew")
    broken = np.stack([np.asarray(logits.broken_by) for logits in files])
    clean, robust = (broken != WRONG).all(0), (broken == ROBUST).all(0)
    both = {"clean": packed(clean), "robust": packed(robust)}
    return both, broken.shape[1], examples(files[0])


def figures(
    run: Path, kinds: Sequence[str], data: str, oracle: str, limit: int
) -> dict[str, float]:
    """Return the figures of the best checkpoint's outputs and weights that are asked for."""
    found: dict[str, float] = {}
    if "pgd" in kinds:
        file = logits_of(run, "best", "pgd")
        for name, (analysis, key) in BY_PGD.items():
            found[name] = number(advkit.analyze(analysis, file).numbers[key])
        if "oracle" in kinds and oracle:
            people = advkit.analyze("discrepancy", file, oracle=oracle, data=data, temperatures="1")
            found["discrepancy"] = number(people.numbers["discrepancy"])
    if "ood" in kinds:
        file = run / "best.none-on-photos.h5"
        found["ood_entropy"] = number(advkit.analyze("entropy", file).numbers["clean_entropy"])
    if "rise" in kinds:
        net = run / "best.safetensors"
        around = advkit.analyze("weight-landscape", net, limit=limit, directions=4, points=9)
        found["rise"] = number(around.numbers["adversarial_mean_rise"])
    return found


def number(value: object) -> float:
    """Return a figure with six digits."""
    if not isinstance(value, int | float):
        raise SystemExit(f"{value!r} is no figure")
    return float(f"{value:.6g}")


def epochs(run: Path) -> Iterator[tuple[str, object]]:
    """Yield what the training says of itself in validation, and where the best lies."""
    record = json.loads(Path(f"{run}.train.jsonl").read_text().splitlines()[-1])
    names = ("epoch", "robust_accuracy", "best_robust_accuracy", "final_robust_accuracy")
    yield from ((name, record[name]) for name in names if name in record)


def run_summary(words: argparse.Namespace) -> dict[str, object]:
    """Return all that the report needs of one run."""
    run, points = Path(words.id), words.points.split(",")
    bits: dict[str, dict[str, str]] = {}
    for point in points:
        bits[point], n, which = verdicts(run, point)
    size, name, seed = re.fullmatch(r"(\w+?)-(.+)-s(\d+)", words.id).groups()  # type: ignore[union-attr]
    made = figures(run, words.figures.split(","), words.data, words.oracle, words.landscape)
    return {
        "run": name, "size": size, "seed": int(seed), "asked": words.asked, "n": n, "images": which,
        "training": dict(epochs(run)), "verdicts": bits, "figures": made,
    }  # fmt: skip


def autoattack_summary(words: argparse.Namespace) -> dict[str, object]:
    """Return AutoAttack's verdicts, those of its first two attacks, and which images these are."""
    run, point = Path(words.id), words.points
    logits = read(run, point, "autoattack")
    whole = json.loads(Path(f"summary/{words.id}.json").read_text())["n"]
    broken, which = np.asarray(logits.broken_by), np.zeros(whole, dtype=np.bool_)
    which[logits.index.numpy()] = True
    first = [logits.attacks.index(name) for name in ("apgd-ce", "apgd-t")]
    fast = (broken != WRONG) & ~np.isin(broken, first)
    size, name, seed = re.fullmatch(r"(\w+?)-(.+)-s(\d+)", words.id).groups()  # type: ignore[union-attr]
    return {
        "run": name, "size": size, "seed": int(seed), "asked": words.asked, "point": point,
        "n": len(broken), "among": packed(which), "robust": packed(broken == ROBUST),
        "fast": packed(fast),
    }  # fmt: skip


def numbers_summary(words: argparse.Namespace) -> dict[str, object]:
    """Return what `advkit search adr` chose, and as options of a training."""
    record = json.loads(Path(words.id).read_text().splitlines()[-1])
    options = f"--tau {record['tau']} --lambda {record['lambda']} --ema-decay {record['ema_decay']}"
    names = ("trials", "n", "verdict", "difference", "difference_low", "difference_high")
    return {"options": options, **{name: record[name] for name in names}}


def main() -> None:
    """Write one summary, whole or not at all."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=("run", "autoattack", "numbers"))
    parser.add_argument("id")
    parser.add_argument("--asked", default="")
    parser.add_argument("--points", default="")
    parser.add_argument("--figures", default="none")
    parser.add_argument("--data", default="")
    parser.add_argument("--oracle", default="")
    parser.add_argument("--landscape", type=int, default=500)
    parser.add_argument("--out", required=True)
    words = parser.parse_args()
    made = {"run": run_summary, "autoattack": autoattack_summary, "numbers": numbers_summary}
    summary = made[words.kind](words)
    place = Path(words.out)
    new = place.with_name(f"{place.name}.new")
    new.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    new.replace(place)


if __name__ == "__main__":
    main()
