"""Presets of single codes, typed in from their scripts by a second reader.

A number that a script takes from its command is that of the command in its README or shell script.
Epochs at which the rate falls are counted from 0: codes that count from 1, or step their schedule
after an epoch, are brought to that.
"""

from __future__ import annotations

import pytest

from advkit.config.resolve import resolve
from advkit.errors import UsageError
from tests.config.preset_tables import DDPM, Run
from tests.config.test_presets import comparable

CODE = {"lr_schedule": "multistep", "momentum": 0.9, "nesterov": False, "last_batch": "keep"}
"""SGD as PyTorch has it, and a loader that drops nothing."""
PGD = {"norm": "linf", "eps": 8 / 255, "attack_steps": 10, "step_size": 2 / 255}
LIKE_TRADES = {"attack_bn": "eval", "attack_start": "normal", "clip_start": False}

SAT = {
    # run_trades_sat.sh; the scheduler is told epochs from 1, before each
    **CODE | LIKE_TRADES,
    "norm": "linf",
    "eps": 0.031,
    "attack_steps": 10,
    "step_size": 0.007,
    "epochs": 100,
    "batch_size": 128,
    "lr": 0.1,
    "lr_drops": (74, 89, 99),
    "weight_decay": 2e-4,
    "normalise": False,
    "beta": 6.0,
    "memory_momentum": 0.9,
    "memory_from": 70,
}
TE = {
    # train_te.py
    **CODE | PGD,
    "epochs": 200,
    "batch_size": 128,
    "lr": 0.1,
    "lr_drops": (100, 150),
    "weight_decay": 5e-4,
    "normalise": False,
    "attack_bn": "eval",
    "clip_start": False,
    "memory_momentum": 0.9,
    "ensemble_weight": 300.0,
    "ramp": "90:150",
}
IAD = {
    # IAD-I.py, epochs from 0
    **CODE | PGD,
    "epochs": 200,
    "batch_size": 128,
    "lr": 0.1,
    "lr_drops": (100,),
    "weight_decay": 2e-4,
    "normalise": False,
    "attack_bn": "train",
    "attack_start": "uniform",
    "clip_start": False,
    "trust_exponent": 0.1,
    "introspect_from": 61,
}
ADAAD = {
    # main.py under the README's command: weight_decay 5e-4 and AdaAD_alpha 1 by default
    **CODE | PGD | LIKE_TRADES,
    "epochs": 200,
    "batch_size": 128,
    "lr": 0.1,
    "lr_drops": (100, 150),
    "weight_decay": 5e-4,
    "normalise": False,
    "alpha": 1.0,
    "clean_pass": True,
}
SAAD = {
    # args.py under main.sh: --beta 0 --gamma 1 --igdm_alpha 1
    **CODE | PGD | LIKE_TRADES,
    "epochs": 200,
    "batch_size": 128,
    "lr": 0.1,
    "lr_drops": (100, 150),
    "weight_decay": 2e-4,
    "normalise": False,
    "gradient_weight": 1.0,
    "clean_weight": 0.0,
    "entropy_scale": 5.0,
    "entropy_order": 1.0,
    "teacher_step": 1.0,
}
KD = {
    # main_adv.py; coef_ce, coef_kd1 of the naturally trained, coef_kd2 of the robust teacher
    **CODE | PGD,
    "epochs": 200,
    "batch_size": 128,
    "lr": 0.1,
    "lr_drops": (50, 150),
    "weight_decay": 5e-4,
    "normalise": True,
    "attack_bn": "train",
    "attack_start": "uniform",
    "clip_start": True,
    "label_weight": 0.3,
    "natural_weight": 0.1,
    "robust_weight": 0.6,
    "softening": 2.0,
}
MLCAT = {
    # train_step4_scale_15.py
    **CODE | PGD,
    "epochs": 200,
    "batch_size": 128,
    "lr": 0.1,
    "lr_drops": (100, 150),
    "weight_decay": 5e-4,
    "normalise": True,
    "attack_bn": "train",
    "attack_start": "uniform",
    "clip_start": True,
    "awp": 0.0,
}
FGSM_RS = {
    # train_fgsm.py
    **CODE,
    "norm": "linf",
    "eps": 8 / 255,
    "attack_steps": 1,
    "step_size": 10 / 255,
    "epochs": 15,
    "batch_size": 128,
    "lr": 0.2,
    "lr_schedule": "triangular",
    "weight_decay": 5e-4,
    "normalise": True,
    "amp": True,
    "attack_bn": "train",
    "attack_start": "uniform",
    "clip_start": True,
}
VIT = {
    # train_cifar.py and parser_cifar.py: the rate is set after a step, epoch 35 of 40 being over
    **CODE | PGD,
    "optimizer": "sgd",
    "epochs": 40,
    "batch_size": 64,
    "lr": 0.1,
    "lr_drops": (35, 38),
    "weight_decay": 1e-4,
    "clip_grad_norm": 1.0,
    "normalise": True,
    "attack_bn": "eval",
    "attack_start": "normal",
    "clip_start": True,
    "beta": 6.0,
}
GRAD_ALIGN = {
    # train.py under the README's command: attack_init zero, eps 8, lr_max 0.30, half_prec
    **CODE,
    "last_batch": "drop",
    "norm": "linf",
    "eps": 8 / 255,
    "attack_steps": 1,
    "step_size": 1.25 * (8 / 255),
    "epochs": 30,
    "batch_size": 128,
    "lr": 0.3,
    "lr_schedule": "triangular",
    "lr_peak": 12 / 30,  # n_epochs * 2 // 5
    "weight_decay": 5e-4,
    "normalise": False,
    "amp": True,
    "attack_bn": "train",
    "attack_start": "none",
}
ONE_CYCLE = {"lr_schedule": "onecycle", "lr_peak": 0.25, "nesterov": True, "weight_decay": 5e-4}
HAT = {
    # train.py under the README's command: beta 2.5, gamma 0.5; the parser's lr 0.21 and h 2
    **PGD | LIKE_TRADES | ONE_CYCLE,
    "epochs": 50,
    "batch_size": 128,
    "last_batch": "keep",
    "lr": 0.21,
    "lr_hold": 1,
    "normalise": False,
    "beta": 2.5,
    "helper_weight": 0.5,
    "helper_step": 2.0,
    "ema_warmup": None,
}
GOWAL = {
    # gowal21uncovering/ and the nets "with swish", whose input is normalised
    **PGD | ONE_CYCLE,
    "attack_bn": "frozen",
    "attack_start": "uniform",
    "clip_start": True,
    "bn_momentum": 0.01,
    "norm_decay": False,
    "activation": "silu",
    "form": "deepmind",
    "normalise": True,
    "extra_fraction": 0.7,
}
HAT_EXTRA = {
    # train-wa.py: 400 epochs of ⌈50000/1024⌉ = 49 iterations, 19,600 in all; here 159 an epoch
    **GOWAL,
    "epochs": round(400 * 49 / (48976 // 307)),
    "batch_size": 1024,
    "lr": 0.4,
    "lr_hold": 1,
    "smoothing": 0.1,
    "beta": 3.5,
    "helper_weight": 0.5,
    "helper_step": 2.0,
}
COSINE_W = {
    # --scheduler cosinew, the parser's default, moved after each of 400 epochs of 98 iterations
    **GOWAL,
    "epochs": round(400 * 98 / (48976 // 154)),
    "batch_size": 512,
    "lr": 0.2,
    "lr_peak": 0.025,
    "lr_hold": 98,
}
STUDENT_S = {"ema_decay": 0.995, "ema_norms": "student"}
DEIT = "timm:deit_tiny_patch16_224,patch_size=4"
PREACT = "preact-resnet18"
RUNS = [
    Run("repo", "cifar10", "wrn-34-10", "sat", SAT),
    Run("repo", "cifar10", "resnet18", "te", {**TE, "attack_start": "uniform", "base": "at"}),
    Run(
        "repo",
        "cifar10",
        "resnet18",
        "te",
        {**TE, "attack_start": "normal", "beta": 6.0},
        {"base": "trades"},
    ),
    Run("repo", "cifar10", "resnet18", "iad", IAD),
    Run("repo", "cifar100", "resnet18", "iad-wa", IAD),
    Run("repo", "cifar10", "resnet18", "adaad", {**ADAAD, "divergence_weight": 0.1}),
    Run("repo", "cifar100", "resnet18", "adaad", {**ADAAD, "divergence_weight": 1.0}),
    Run("repo", "cifar10", "resnet18", "saad", {**SAAD, "swa_start": None}),
    Run("repo", "cifar10", "resnet18", "saad-wa", {**SAAD, "swa_start": 95}),
    Run("repo", "cifar10", PREACT, "kd", {**KD, "swa_start": None}),
    Run("repo", "tinyimagenet", PREACT, "kd-wa", {**KD, "swa_start": 56}),
    Run("repo", "cifar10", PREACT, "at", MLCAT, {"min_loss": 1.5}),
    Run("repo", "cifar10", PREACT, "at", FGSM_RS, {"train_attack": "fgsm-rs"}),
    Run(
        "repo",
        "cifar10",
        PREACT,
        "at",
        GRAD_ALIGN,
        {"train_attack": "fgsm-rs", "grad_align": 0.2},
    ),
    Run("repo", "cifar10", "resnet18", "hat", HAT),
    Run("repo", "cifar10", "wrn-28-10", "hat+smoothing", HAT_EXTRA, DDPM),
    Run(
        "repo",
        "cifar10",
        "wrn-28-10",
        "hat+smoothing-wa",
        {**HAT_EXTRA, **STUDENT_S, "ema_warmup": 0.0},
        DDPM,
    ),
    Run("repo", "cifar10", "wrn-28-10", "score", {**COSINE_W, "beta": 3.0}, DDPM),
    Run(
        "repo",
        "cifar10",
        "wrn-28-10",
        "score-wa",
        {**COSINE_W, **STUDENT_S, "beta": 3.0, "ema_warmup": 3.08},
        DDPM,
    ),
    Run(
        "repo",
        "cifar10",
        "wrn-28-10",
        "trades+smoothing-wa",
        {
            **COSINE_W,
            **STUDENT_S,
            "beta": 5.0,
            "smoothing": 0.1,
            "inner": "kl",
            "bn_passes": "ca",
            "ema_warmup": 3.08,
        },
        DDPM,
    ),
    Run("repo", "cifar10", DEIT, "trades", VIT),
    Run("repo", "cifar10", DEIT, "mart", VIT),
]


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_numbers(run):
    resolved = resolve((run.flags, "flag"), preset=run.preset)
    found = comparable(resolved.settings)
    assert {key: found[key] for key in run.expected} == run.expected
    # From the preset even where a default happens to agree with it today.
    silent = {key for key in run.expected if resolved.origins.get(key, "default") == "default"}
    assert silent <= {"base", "swa_start", "awp", "optimizer", "ema_warmup", "lr_hold"}


def test_the_average_s_warm_up_is_a_fortieth_of_the_run():
    """SCORE's: 0.025 · 400 epochs · 98 iterations."""
    steps = 48976 // 154
    assert round(3.08 * steps) == pytest.approx(0.025 * 400 * 98, abs=1)


@pytest.mark.parametrize(
    ("data", "arch", "method", "more"),
    [
        ("cifar100", "wrn-34-10", "sat", {}),
        ("cifar10", "resnet18", "sat", {}),
        ("cifar100", "resnet18", "te", {}),
        ("cifar100", "resnet18", "saad", {}),  # no weight of its clean term is told
        ("cifar100", PREACT, "kd", {}),  # rotates its images
        ("cifar10", "resnet18", "kd", {}),
        ("cifar10", PREACT, "at", {}),
        ("cifar10", PREACT, "at", {"min_loss": 1.0}),
        ("cifar10", PREACT, "at-awp", {"min_loss": 1.5}),
        ("cifar100", PREACT, "at", {"train_attack": "fgsm-rs"}),
        ("cifar10", DEIT, "at", {}),  # mixes images in two ways
        ("cifar10", "timm:deit_tiny_patch16_224", "trades", {}),
        ("tinyimagenet", "resnet18", "adaad", {}),
        ("cifar10", "resnet18", "igdm", {}),
        ("cifar10", "wrn-34-10", "ikl", {}),
        ("cifar10", "wrn-28-10", "score", {}),
        ("cifar100", "wrn-28-10", "score", DDPM),  # its arguments were not published with the code
        ("cifar10", "wrn-28-10", "hat", DDPM),
        ("cifar10", PREACT, "at", {"train_attack": "fgsm-rs", "grad_align": 0.5}),
    ],
)
def test_no_numbers(data, arch, method, more):
    flags = {"data": data, "arch": arch, "method": method, **more}
    for preset in ("paper", "repo"):
        with pytest.raises(UsageError, match=f"--preset {preset} has no numbers"):
            resolve((flags, "flag"), preset=preset)
