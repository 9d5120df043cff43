"""Options that nothing in a run looks at, because another option is as it is."""

from __future__ import annotations

from collections.abc import Mapping

from advkit import registry
from advkit.config.settings import UNTOLD
from advkit.formulas.schedules import PEAKS

_UNKNOWN: Mapping[str, object] = {
    **UNTOLD,
    "awp": None,
    "wa": True,
    "lr_schedule": "multistep",
}
"""What decides, where a configuration does not tell it: nothing is called idle on a guess."""


def idle(told: Mapping[str, object]) -> dict[str, str]:
    """Return the options that do nothing in a run, and what each waits for, in words.

    Args:
        told: its configuration by option name; whole, or as a description tells it: without paths,
            without what is in `UNTOLD`, and of nets from elsewhere with gaps.

    >>> told = {"awp": 0.0, "wa": True, "lr_schedule": "triangular", "extra_digest": "sha256:0"}
    >>> list(idle(told))[:4]
    ['awp_form', 'awp_warmup', 'start_radius', 'lr_drops']
    """
    own = {**_UNKNOWN, **told}
    schedule = str(own["lr_schedule"])
    multistep, onecycle = schedule == "multistep", schedule == "onecycle"
    sgd = own["optimizer"] == "sgd"
    moved = "under --lr-schedule onecycle, which moves it between 0.95 and 0.85" if onecycle else ""
    low = "under --lr-schedule onecycle, which begins low itself" if onecycle else ""
    averaging = "" if own["wa"] or _teaches(own.get("labels")) else "without --wa or ADR's labels"
    if own["swa_start"] is not None:
        averaging = "with --swa-start"
    # Descriptions hold no path: they name extra data by its digest.
    extra = own.get("extra_data") or own.get("extra_digest")
    # The reason is empty for an option that something does look at.
    waits = {
        "awp_form": "without --awp" if own["awp"] == 0 else "",
        "awp_warmup": "without --awp" if own["awp"] == 0 else "",
        "compile_mode": "" if own.get("compile", True) else "without --compile",
        "extra_fraction": "" if extra else "without --extra-data",
        "momentum": moved if sgd else "with --optimizer adamw, whose betas are 0.9 and 0.999",
        "nesterov": "" if sgd else "with --optimizer adamw",
        "start_radius": "" if own["train_attack"] == "n-fgsm" else "without --train-attack n-fgsm",
        "ema_decay": averaging,
        "ema_warmup": averaging,
        "ema_norms": averaging,
        "bn_passes": "with --joint-batch" if own.get("joint_batch") else "",
        "lr_drops": "" if multistep else f"under --lr-schedule {schedule}",
        "lr_hold": "under --lr-schedule multistep" if multistep else "",
        "lr_peak": "" if schedule in PEAKS else f"under --lr-schedule {schedule}",
        "warmup_epochs": low,
        "warmup_steps": low,
        "image_list": "in training: it names test images, give it to `advkit attack`",
        "corruption": "in training: corrupted images are test images alone",
        "severity": "in training: corrupted images are test images alone",
    }
    return {name: why for name, why in waits.items() if why}


def _teaches(labels: object) -> bool:
    """Whether the weight average teaches, as for ADR; of an unknown label source it may."""
    source = registry.parts("labels").get(str(labels))
    return source is None or "ema" in source.constants.get("NEEDS", ())
