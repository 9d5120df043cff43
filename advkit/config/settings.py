"""Settings of a training run: what the engine needs, and the options that exist."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from advkit import registry
from advkit.formulas.schedules import LR_SCHEDULES
from advkit.formulas.threat import NORMS, STARTS
from advkit.options import (
    BATCHES,
    COUNTS,
    SEEDS,
    TEMPERATURES,
    Option,
    declared,
    options_of,
)
from advkit.registry import split_path
from advkit.runtime.modes import ATTACK_BN

METHOD, DATA, ATTACK, OPTIMISER, RUN = "Method", "Data", "Inner attack", "Optimisation", "Run"
PART_FOLDERS = ("objectives", "labels", "augment", "models", "data")
OUTSIDE = (
    *("soft_labels", "teacher", "natural_teacher", "init", "extra_data"),
    *("image_list", "workers"),
)
"""Paths, and what changes no result: not part of an artifact's description."""
CROP_FLIP = "crop-flip"
"""The augmentation of all runs before there was a choice."""
UNTOLD: Mapping[str, object] = {
    "init_digest": None,
    "swa_start": None,
    "teacher_digest": None,
    "natural_teacher_digest": None,
    "test_fraction": None,
    "skip_broken": False,
    "augment": CROP_FLIP,
    "min_loss": 0.0,
    "train_attack": "pgd",
    "start_radius": 2.0,
    "grad_align": 0.0,
    "select": "pgd",
    "optimizer": "sgd",
    "clip_grad_norm": 0.0,
    "warmup_steps": None,
    "lr_peak": None,
    "lr_hold": 1,
    "ema_warmup": None,
    "ema_norms": "average",
    "divergence_weight": 1.0,
    "clean_pass": False,
    "noise": "host",
    "tf32": False,
    "compile_mode": "default",
}
"""Options that a description says nothing of where they have this value, which is what runs did
before they could be asked for: descriptions of earlier runs stay as they are."""
BY_MACHINE: Mapping[str, Mapping[str, object]] = {"noise": {"cuda": "device"}}
"""Option → kind of device → default there; elsewhere it is the option's own."""
ATTACKED = ("attack_steps", "train_attack", "start_radius", "grad_align", "select")
"""Options of adversarial training that natural training refuses."""
CHOICES = ("objective", "labels", "wa")
COMPILE_MODES = ("default", "reduce-overhead")
EMA_NORMS = ("average", "student")
LAST_BATCH = ("drop", "keep")
NOISE = ("host", "device")
OPTIMIZERS = ("sgd", "adamw")
SELECT = ("pgd", "margin", "apgd")
TRAIN_ATTACKS = ("pgd", "fgsm-rs", "n-fgsm")
CYCLIC_WARMUP = 1 / 40
"""Share of a cyclic schedule that warms up: ADR's 10 of 400 epochs, Gowal et al.'s 2.5 %."""


@dataclass(frozen=True)
class Settings:
    """What the training engine itself needs; `parts` holds the options of the chosen parts."""

    method: str = declared("at", METHOD, "named objective, labels and weight space")
    objective: str = declared("at", METHOD, "what attack and student optimise")
    labels: str = declared("onehot", METHOD, "what the student is asked to say")
    wa: bool = declared(False, METHOD, "select and report the weight average as well")
    awp: float = declared(
        0.0, METHOD, "radius ρ of weight perturbation; 0 for none", limits="[0, 100]"
    )
    awp_form: str = declared("original", METHOD, "whose weight perturbation", ("original", "adr"))
    awp_warmup: int = declared(
        0,
        METHOD,
        "first epoch with weight perturbation, counted from 1; 0 is the same as 1",
        limits="[0, 1e6]",
    )
    ema_decay: float = declared(
        0.995, METHOD, "γ of the weight average and of ADR's teacher", limits="[0, 1)"
    )
    swa_start: int | None = declared(
        None,
        METHOD,
        "first epoch, counted from 1, of an even weight average by epochs; exponential by steps "
        "if not given",
        limits="[1, 1e6]",
    )
    ema_warmup: float | None = declared(
        None,
        METHOD,
        "epochs in which the weight average is the student; then γ grows as (1 + n)/(10 + n) to "
        "--ema-decay; no growth if not given",
        limits="[0, 1e6]",
    )
    ema_norms: str = declared(
        "average", METHOD, "whose BN statistics the weight average has: own or student's", EMA_NORMS
    )
    soft_labels: str | None = declared(None, METHOD, "labels file of `advkit softlabels`")
    teacher: str | None = declared(
        None, METHOD, "net that gives soft labels on the fly, or that the objective itself asks"
    )
    teacher_digest: str | None = declared(
        None, METHOD, "digest that the objective's teacher must have; a run fills it in"
    )
    natural_teacher: str | None = declared(
        None,
        METHOD,
        "net trained on clean images (`advkit pretrain-teacher`) that objectives hat and kd ask",
    )
    natural_teacher_digest: str | None = declared(
        None, METHOD, "digest that the naturally trained teacher must have; a run fills it in"
    )
    labels_digest: str | None = declared(
        None, METHOD, "digest that the labels file or teacher must have; a run fills it in"
    )
    init: str | None = declared(None, METHOD, "checkpoint whose weights training starts from")
    init_digest: str | None = declared(
        None, METHOD, "digest that the checkpoint of --init must have; a run fills it in"
    )
    student_temperature: float = declared(
        1.0,
        METHOD,
        "other than 1 only to show defensive distillation's masking",
        limits=TEMPERATURES,
    )
    data: str = declared("", DATA, "data set, NAME or NAME:PATH")
    augment: str = declared(CROP_FLIP, DATA, "how training images are changed at random")
    extra_data: str | None = declared(
        None,
        DATA,
        "synthetic images mixed into every batch: npz files (`image`, `label`) or folders of "
        "image.npy and label.npy, commas between, patterns too",
    )
    extra_fraction: float = declared(
        0.75, DATA, "share of each batch that comes from --extra-data", limits="[0, 1)"
    )
    extra_digest: str | None = declared(
        None, DATA, "digest that the extra data must have; a run fills it in"
    )
    workers: int | None = declared(
        None,
        DATA,
        "processes to decode files or, on a GPU, run idbh and autoaugment; one a core if not given",
        limits="[0, 1024]",
    )
    limit: int | None = declared(
        None, DATA, "first N training examples, class balanced", limits=COUNTS
    )
    val_size: int | None = declared(
        None,
        DATA,
        "examples set aside for selection; a fifth of them, at most 1024, if not given",
        limits=COUNTS,
    )
    split_seed: int = declared(0, DATA, "seed of the validation split", limits=SEEDS)
    arch: str = declared("", METHOD, "architecture, or torchvision:NAME, timm:NAME")
    normalise: bool = declared(
        True, METHOD, "the net subtracts the data's mean and divides by its deviation first"
    )
    bn_momentum: float | None = declared(
        None,
        METHOD,
        "of BN's running statistics, after a first iteration with 1; PyTorch's 0.1 if not given",
        limits="(0, 1]",
    )
    logging_pass: bool = declared(
        False, METHOD, "clean pass in train mode after each step: it moves BN's statistics"
    )
    sync_bn: bool = declared(
        False, METHOD, "batch statistics over all processes of a run (GPUs only)"
    )
    epochs: int = declared(200, OPTIMISER, "passes over the training examples", limits="[1, 1e6]")
    batch_size: int = declared(128, OPTIMISER, "examples in a batch", limits=BATCHES)
    last_batch: str = declared(
        "drop", OPTIMISER, "an epoch's last batch where it is smaller than the others", LAST_BATCH
    )
    lr: float = declared(0.1, OPTIMISER, "initial learning rate", limits="(0, 1e30]")
    lr_schedule: str = declared("multistep", OPTIMISER, "how the rate falls", LR_SCHEDULES)
    lr_drops: list[int] | None = declared(
        None,
        OPTIMISER,
        "epochs at whose start the rate is divided by 10; half and three quarters if not given",
        kind="ints",
        limits="[0, 1e6]",
    )
    lr_peak: float | None = declared(
        None,
        OPTIMISER,
        "share of training before the highest rate; 0.5 for triangular, 0.3 for onecycle, if not "
        "given",
        limits="[1e-6, 0.999999]",
    )
    lr_hold: int = declared(
        1,
        OPTIMISER,
        "steps for which the rate stays before it follows its schedule",
        limits="[1, 1e9]",
    )
    warmup_epochs: float | None = declared(
        None,
        OPTIMISER,
        "epochs of linear warm-up; a fortieth of all for cyclic, else none, if not given",
        limits="[0, 1e6]",
    )
    warmup_steps: int | None = declared(
        None,
        OPTIMISER,
        "steps of linear warm-up, in place of --warmup-epochs",
        limits="[0, 1e9]",
    )
    optimizer: str = declared("sgd", OPTIMISER, "what takes the steps", OPTIMIZERS)
    clip_grad_norm: float = declared(
        0.0,
        OPTIMISER,
        "largest l2 norm of a step's gradient over all parameters; 0 for none",
        limits="[0, 1e9]",
    )
    momentum: float = declared(0.9, OPTIMISER, "of SGD", limits="[0, 1)")
    nesterov: bool = declared(True, OPTIMISER, "Nesterov momentum")
    weight_decay: float = declared(5e-4, OPTIMISER, "on every parameter", limits="[0, 1000]")
    norm_decay: bool = declared(True, OPTIMISER, "weight decay on batch normalisation too")
    norm: str = declared("linf", ATTACK, "norm of the perturbation", NORMS)
    eps: str = declared("8/255", ATTACK, "radius ε in pixel space [0, 1]")
    train_attack: str = declared(
        "pgd", ATTACK, "inner attack; all but pgd are one step, see docs/methods.md", TRAIN_ATTACKS
    )
    start_radius: float = declared(
        2.0, ATTACK, "radius of n-fgsm's first iterate, in ε", limits="[0, 10]"
    )
    grad_align: float = declared(
        0.0,
        ATTACK,
        "weight λ of GradAlign: gradients in the ball point as at its middle; 0 for none",
        limits="[0, 1e6]",
    )
    attack_steps: int = declared(
        10, ATTACK, "gradient steps of the inner attack; 0 for none", limits="[0, 1e5]"
    )
    step_size: str = declared("eps/4", ATTACK, "step α in pixel space, or a share of ε")
    attack_start: str | None = declared(
        None, ATTACK, "first iterate; the objective's own if not given", STARTS
    )
    attack_bn: str = declared("eval", ATTACK, "batch normalisation during the attack", ATTACK_BN)
    clip_start: bool = declared(
        True, ATTACK, "clip the attack's first iterate to [0, 1] before the first gradient"
    )
    select: str = declared(
        "pgd", RUN, "attack on the validation split that chooses the best checkpoint", SELECT
    )
    amp: bool = declared(
        False, RUN, "model passes in bfloat16, where the processor has it; losses in float32"
    )
    tf32: bool = declared(
        False, RUN, "training multiplies float32 as TF32, on CUDA; evaluation never does"
    )
    compile: bool = declared(
        False, RUN, "torch.compile for attack and training: a minute or two before the first step"
    )
    compile_mode: str = declared(
        "default", RUN, "of --compile; reduce-overhead is CUDA graphs, on CUDA", COMPILE_MODES
    )
    noise: str = declared(
        "host",
        RUN,
        "where a step's large noise is drawn: host is the same on all machines; device if not "
        "given on CUDA",
        NOISE,
    )
    seed: int = declared(0, RUN, "seed of weights, order, crops and noise", limits=SEEDS)
    parts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def options_of(self, folder: str) -> dict[str, Any]:
        """Options of the chosen part of a folder, as its functions take them."""
        return dict(self.parts.get(folder, {}))

    @property
    def teachers(self) -> dict[str, tuple[str | None, str | None]]:
        """The teachers that the objective asks: role → checkpoint and digest, where given."""
        needs = registry.part("objectives", self.objective).constants.get("NEEDS", ())
        paths = {"teacher": self.teacher, "natural-teacher": self.natural_teacher}
        digests = {"teacher": self.teacher_digest, "natural-teacher": self.natural_teacher_digest}
        return {role: (paths[role], digests[role]) for role in needs}

    @property
    def data_name(self) -> str:
        """The data set without its path."""
        return split_path(self.data)[0]

    def flat(self) -> dict[str, object]:
        """Every value under its option name, parts included; None where it is left open."""
        flat: dict[str, object] = {name: getattr(self, name) for name in own_options()}
        for options in self.parts.values():
            flat.update(options)
        return flat

    @property
    def drops(self) -> tuple[int, ...]:
        """Epochs at whose start the learning rate falls."""
        if self.lr_drops is not None:
            return tuple(self.lr_drops)
        # Of a single epoch no half is to be trained at a hundredth of the rate.
        return max(1, self.epochs // 2), max(1, self.epochs * 3 // 4)

    @property
    def warmup(self) -> float:
        """Epochs of linear warm-up."""
        if self.warmup_epochs is not None:
            return self.warmup_epochs
        return self.epochs * CYCLIC_WARMUP if self.lr_schedule == "cyclic" else 0.0

    @property
    def run_name(self) -> str:
        """DATA-ARCH-METHOD-sSEED, safe as a folder's name."""
        name, path = split_path(self.data)
        data = f"{name}-{Path(path).resolve().name}" if path else name
        # The folder's name alone: its path may be long, and another on the next machine.
        text = f"{data}-{self.arch}-{self.method}-s{self.seed}"
        return re.sub(r"[^\w.+-]+", "_", text)

    def described(self) -> dict[str, object]:
        """The configuration as artifacts carry it: without paths."""
        flat = {
            key: value
            for key, value in self.flat().items()
            if key not in OUTSIDE and not (key in UNTOLD and value == UNTOLD[key])
        }
        return {**flat, "data": self.data_name}


@cache
def own_options() -> tuple[str, ...]:
    """Return the names of the engine's own options."""
    return tuple(own.name for own in dataclasses.fields(Settings) if own.name != "parts")


def options() -> tuple[Option, ...]:
    """Every option of a training run: the engine's own, then those of all parts.

    Raises:
        UsageError: a part has an option of the engine's, or one of another kind on another shelf.
    """
    return _joined(tuple(registry.shared_options(folder) for folder in PART_FOLDERS))


@cache
def _joined(shelves: tuple[tuple[Option, ...], ...]) -> tuple[Option, ...]:
    every = {option.name: option for option in options_of(Settings)}
    for options in shelves:
        for option in options:
            if option.name in own_options():
                raise registry.clash(option.name, "training itself", PART_FOLDERS)
            if every.get(option.name, option).kind != option.kind:
                kinds = f"{every[option.name].kind} and {option.kind}"
                raise registry.clash(option.name, f"another part: {kinds}", PART_FOLDERS)
            every[option.name] = option
    return tuple(every.values())
