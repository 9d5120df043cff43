"""The line that a record is at a terminal: what it is about, then the figures that matter.

One table for every kind of record, and one for the analyses. A figure that a record lacks, or
that is null there, is left out, so that a kind needs one row however its records differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from advkit.artifacts.record import Record
from advkit.cli.common.words import (
    Words,
    difference,
    file_named,
    number,
    run_named,
    share,
    text,
)
from advkit.errors import brief, few, printable

GAP = "  "
FEW = 3
"""Figures of an analysis that has no row here, one of somebody else's."""
RUNG = {
    "masking_alarm": "looks like gradient masking",
    "overfitting_alarm": "overfitted catastrophically",
    "teacher_alarm": "its teacher is worse",
    "labels_alarm": "its labels are nearly uniform",
    "gradient_alarm": "trained in part without gradient",
    "margin_alarm": "falls to the margin",
}
"""Alarm of training → what a checkpoint's line says of it."""
COMMON = {"kind", "path", "digest", "analysis", "input", "n"}


def line(record: Record) -> str:
    """Return a record as one line.

    >>> line({"kind": "logits", "run": "at-s0", "checkpoint": "runs/at-s0/best.safetensors",
    ...       "path": "runs/at-s0/best.fgsm-linf-0.15.h5", "attack": "fgsm", "norm": "linf",
    ...       "eps_text": "0.15", "robust_accuracy": 0.635, "ci95": [0.566, 0.699],
    ...       "clean_accuracy": 0.995, "n": 200})
    'at-s0  robust 63.5 % [56.6, 69.9]  clean 99.5 %  n 200  fgsm linf 0.15'
    """
    kind = "inspected" if "whole" in record else str(record["kind"])
    if kind == "analysis":
        rows = ANALYSES.get(str(record.get("analysis")), (_some, _n))
        words = [about_analysis(record), *(say(record) for say in rows), _into(record)]
    else:
        words = [say(record) for say in KINDS.get(kind, (_path, _some, _n))]
    return printable(GAP.join(word for word in words if word))


def about_analysis(record: Record) -> str:
    """Return an analysis' name, and its input where it has one of its own."""
    named = record.get("input")
    name = str(record.get("analysis", "analysis"))
    return f"{name}{GAP}{file_named(str(named))}" if named else name


def _path(record: Record) -> str:
    return str(record.get("path") or "")


def _into(record: Record) -> str:
    return f"→ {record['path']}" if record.get("path") else ""


def _attack(record: Record) -> str:
    """Say what was attacked with: the attack, the ball, and the loss where there is a choice."""
    if record.get("attack") == "none":
        return "no attack"
    words = [record.get(key) for key in ("attack", "norm", "eps_text")]
    loss = record.get("loss")
    return " ".join(str(word) for word in words if word) + (f" loss {loss}" if loss else "")


def _validation(record: Record) -> str:
    """Say what the figures of a checkpoint were measured on."""
    if record.get("imported"):
        return "test images, imported"
    epoch = record.get("epoch", record.get("epochs"))
    return "validation" + (f", epoch {epoch}" if epoch is not None else "")


def _alarms(record: Record) -> str:
    """Say in one clause which alarms rang while a net was trained."""
    return ", ".join(words for name, words in RUNG.items() if record.get(name) is True)


def _shard(record: Record) -> str:
    place = record.get("shard")
    return f"shard {place[0]}/{place[1]}" if place else ""


def _flat(record: Record) -> str:
    """Tell of examples without a gradient, where there are any."""
    return share("zero_gradient", "zero gradient")(record) if record.get("zero_gradient") else ""


def _unlabelled(record: Record) -> str:
    known = "attack" not in record or record.get("clean_accuracy") is not None
    return "" if known else f"no labels  {record.get('data')}"


def _verdict(record: Record) -> str:
    """Say how the masking checks ended."""
    unjudged = record.get("not_judged")
    words = f"masked: {record.get('failed')}" if record.get("masked") else "no sign of masking"
    return f"{words}{GAP}not judged: {unjudged}" if unjudged else words


def _checks(record: Record) -> str:
    """Say what is wrong with a part, or how many checks it passed."""
    if problem := record.get("problem"):
        return f"improper: {problem}"
    if record.get("passed"):
        return f"passes all {record['checks']} checks"
    failures = [f"{one['check']}: {one['problem']}" for one in record.get("failures", ())]
    return f"fails {'; '.join(failures)}" if failures else str(record.get("help", ""))


def _whole(record: Record) -> str:
    """Give an artifact's size and what it was made from, nearest first."""
    # Each line of a chain ends in a digest, and is indented by generation.
    made_from = [entry.strip().rpartition(" ")[0] for entry in record["chain"]]
    origin = f"{GAP}from {', '.join(made_from[1:])}" if made_from[1:] else ""
    return f"whole{GAP}{record['bytes']:,} bytes{GAP}{str(record['digest'])[:19]}{origin}"


def _some(record: Record) -> str:
    """Give the first numbers of an analysis that nobody has written a row for."""
    known = [key for key, value in record.items() if key not in COMMON and _is_number(value)]
    return GAP.join(number(key, brief(key.replace("_", " ")))(record) for key in known[:FEW])


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shape(record: Record) -> str:
    return "x".join(str(side) for side in record["shape"])


def _missing(record: Record) -> str:
    """Name the classes of a split that no image has, where there are any."""
    names = record.get("missing")
    return f"no image of {few(names, FEW)}" if names else ""


def _methods(record: Record) -> str:
    return f"{len(record.get('rows', ()))} methods"


_n = number("n")
_robust = share("robust_accuracy", "robust", "ci95")
_clean = share("clean_accuracy", "clean")

KINDS: Mapping[str, Sequence[Words]] = {
    "checkpoint": (
        run_named,
        number("trial"),
        text("tau", "τ"),
        text("lambda", "λ"),
        text("ema_decay", "γ"),
        share("margin_accuracy", "margin"),
        share("apgd_accuracy", "APGD"),
        _robust,
        _clean,
        _n,
        _validation,
        _alarms,
    ),
    "labels": (
        run_named,
        share("teacher_accuracy", "teacher"),
        text("views", "views"),
        _shard,
        _into,
    ),
    "logits": (
        run_named,
        _robust,
        _clean,
        _unlabelled,
        _n,
        _attack,
        _shard,
        _flat,
    ),
    "export": (_path, text("to"), text("method"), text("arch"), text("data")),
    "inspected": (_path, text("kind"), _whole),
    "data": (text("data"), text("split"), _n, _shape, number("classes", "classes"), _missing),
    "part": (lambda record: f"{record['shelf']}/{record['name']}", _checks),
}
"""Kind of a record → its line, in order."""

ANALYSES: Mapping[str, Sequence[Words]] = {
    "ambiguous": (
        number("mean_entropy", "mean entropy"),
        number("mean_distance", "mean distance"),
        number("temperature", "T"),
        _n,
    ),
    "bench": (text("data"), text("arch"), _methods),
    "calibration": (
        number("clean_ece", "clean ECE", "clean_ece_ci95"),
        number("adversarial_ece", "adversarial ECE", "adversarial_ece_ci95"),
        _n,
    ),
    "classes": (
        share("worst_class_robust_accuracy", "worst robust", "worst_class_robust_accuracy_ci95"),
        text("worst_class", "class"),
        _robust,
        _clean,
        _n,
    ),
    "compare": (
        difference("robust"),
        number("robust_p", "p"),
        difference("clean"),
        number("files"),
        number("robust_compared", "robust compared"),
        number("robust_differ", "differ"),
        _n,
    ),
    "corruptions": (
        share("mean_accuracy", "mean accuracy"),
        share("mean_robust_accuracy", "robust"),
        number("corruptions"),
        number("severities"),
        _n,
    ),
    "cost": (number("runs"),),
    "curves": (number("runs"), number("recipes")),
    "discrepancy": (_some, _n),
    "divergence": (
        number("divergence", "", "divergence_ci95"),
        share("changed", "changed", "changed_ci95"),
        _n,
    ),
    "embedding": (
        number("outputs_shift", "outputs move", "outputs_shift_ci95"),
        number("adr_shift", "ADR's labels", "adr_shift_ci95"),
        _n,
    ),
    "entropy": (
        number("clean_entropy", "clean", "clean_entropy_ci95"),
        number("adversarial_entropy", "adversarial", "adversarial_entropy_ci95"),
        _n,
    ),
    "findings": (
        number("models"),
        *(
            number(f"{name}_{end}", f"{name} {end}")
            for name in ("ood", "wrong", "divergence")
            for end in ("holds", "fails")
        ),
    ),
    "grid": (
        share("best_robust_accuracy", "best robust"),
        lambda record: f"at {record.get('x')} {record.get('best_x')}",
        lambda record: f"{record.get('y')} {record['best_y']}" if record.get("best_y") else "",
        number("cells"),
        _n,
    ),
    "input-landscape": (number("gradient_norm", "gradient norm"), number("nonlinearity"), _n),
    "labels": (number("targets"), number("classes"), _n),
    "masking": (_verdict, share("pgd_accuracy", "PGD"), _clean, _n),
    "ood": (
        share("auroc", "AUROC", "auroc_ci95"),
        share("fpr95", "FPR95", "fpr95_ci95"),
        number("models"),
        number("pairs"),
    ),
    "search adr": (
        text("verdict"),
        text("tau", "τ"),
        text("lambda", "λ"),
        text("ema_decay", "γ"),
        _robust,
        _clean,
        _n,
        number("trials"),
    ),
    "search temperature": (
        number("temperature", "T"),
        text("criterion", "by"),
        _robust,
        _clean,
        _n,
        number("trials"),
    ),
    "selective": (
        number("clean_aurc", "clean AURC", "clean_aurc_ci95"),
        number("adversarial_aurc", "adversarial AURC", "adversarial_aurc_ci95"),
        _n,
    ),
    "sweep": (_robust, _clean, number("eps_half", "half of it at ε"), _n),
    "table": (number("files"), text("against", "against"), number("matched")),
    "temperature": (
        number("best_temperature", "best T"),
        share("best_autoattack", "AutoAttack"),
        number("files"),
    ),
    "union": (
        share("union_accuracy", "union", "union_accuracy_ci95"),
        text("weakest"),
        share("weakest_accuracy", "alone"),
        _clean,
        number("threats"),
        _n,
    ),
    "weight-landscape": (
        number("adversarial_mean_rise", "adversarial loss rises by"),
        number("clean_mean_rise", "clean"),
        _n,
    ),
}
"""Analysis → the figures of its line, in order; `advkit analyze NAME`, `bench` and the searches."""
