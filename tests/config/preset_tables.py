"""Every preset's numbers, typed in from the papers and the authors' code by a second reader.

ADR: arXiv 2305.12118 v1, sections 5.1 and 5.4, Tables 1 to 7; code: yuyuwu5/ADR, `config/`.
LTD: arXiv 2111.02331 v3, sections 4.1 and 5, appendix A, Tables 1 to 6; no code was released, so
what the paper leaves to "default settings" is csdongxian/AWP's `trades_AWP`, on which it builds.
No value here was read from `advkit/presets`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from advkit.formulas.schedules import parse_span

DDPM = {"extra_data": "ddpm.npz"}
PRESETS = ("paper", "repo")


@dataclass(frozen=True)
class Run:
    """What somebody types, and what `--preset` must make of it."""

    preset: str
    data: str
    arch: str
    method: str
    expected: dict[str, Any]
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def flags(self) -> dict[str, Any]:
        return {"data": self.data, "arch": self.arch, "method": self.method, **self.extra}

    @property
    def name(self) -> str:
        extra = [f"{key}={value}" for key, value in self.extra.items()]
        return " ".join((self.preset, self.data, self.arch, self.method, *extra))


# --- ADR ---------------------------------------------------------------------------------------

ADR_RUNS = """
# one line a configuration, with or without -wa (Table 2's WA rows are the same training)
# paper: section 5.1, which gives one τ, λ and ρ per data set and nothing else for AWP
# code: the configuration of that name; no Nesterov in its AWP optimiser
#
#                                           epochs drops   | paper: τ  λ        ρ     | code: τ   λ        ρ     Nesterov
cifar10      resnet18  at                 | 200 100,150 | -       -        0     | -       -        0     yes
cifar10      resnet18  at-awp             | 200 100,150 | -       -        0.005 | -       -        0.005 no
cifar10      resnet18  adr                | 200 100,150 | 2.5:2.0 0.7:0.95 0     | 2.5:2.0 0.7:0.95 0     yes
cifar10      resnet18  adr-awp            | 200 100,150 | 2.5:2.0 0.7:0.95 0.005 | 2.5:1.5 0.7:0.85 0.005 no
cifar10      resnet18  trades             | 200 100,150 | -       -        0     | -       -        0     yes
cifar10      resnet18  trades-awp         | 200 100,150 | -       -        0.005 | -       -        0.005 no
cifar10      resnet18  trades-adr         | 200 100,150 | 2.5:2.0 0.7:0.95 0     | 2.5:2.0 0.7:0.95 0     yes
cifar10      resnet18  trades-adr-awp     | 200 100,150 | 2.5:2.0 0.7:0.95 0.005 | 2.5:1.5 0.7:0.85 0.005 no
cifar10      wrn-34-10 at                 | 200 100,150 | -       -        0     | -       -        0     yes
cifar10      wrn-34-10 at-awp             | 200 100,150 | -       -        0.005 | -       -        0.005 no
cifar10      wrn-34-10 adr                | 200 100,150 | 2.5:2.0 0.7:0.95 0     | 2.5:2.0 0.7:0.95 0     yes
cifar10      wrn-34-10 adr-awp            | 200 100,150 | 2.5:2.0 0.7:0.95 0.005 | 2.5:1.5 0.7:0.85 0.005 no
cifar100     resnet18  at                 | 200 100,150 | -       -        0     | -       -        0     yes
cifar100     resnet18  at-awp             | 200 100,150 | -       -        0.005 | -       -        0.005 no
cifar100     resnet18  adr                | 200 100,150 | 1.5:1.0 0.7:0.95 0     | 1.5:1.0 0.7:0.95 0     yes
cifar100     resnet18  adr-awp            | 200 100,150 | 1.5:1.0 0.7:0.95 0.005 | 2.0:1.0 0.7:0.85 0.005 no
# the next file misnames four settings, so it does not start; its other numbers are those of its kin
cifar100     resnet18  trades             | 200 100,150 | -       -        0     | -       -        0     yes
cifar100     resnet18  trades-awp         | 200 100,150 | -       -        0.005 | -       -        0.005 no
cifar100     resnet18  trades-adr         | 200 100,150 | 1.5:1.0 0.7:0.95 0     | 1.5:1.0 0.7:0.95 0     yes
cifar100     resnet18  trades-adr-awp     | 200 100,150 | 1.5:1.0 0.7:0.95 0.005 | 1.5:1.0 0.7:0.95 0.005 no
cifar100     wrn-34-10 at                 | 200 100,150 | -       -        0     | -       -        0     yes
cifar100     wrn-34-10 at-awp             | 200 100,150 | -       -        0.005 | -       -        0.005 no
cifar100     wrn-34-10 adr                | 200 100,150 | 1.5:1.0 0.7:0.95 0     | 1.5:1.0 0.7:0.95 0     yes
cifar100     wrn-34-10 adr-awp            | 200 100,150 | 1.5:1.0 0.7:0.95 0.005 | 2.0:1.0 0.7:0.85 0.005 no
tinyimagenet resnet18  at                 | 80  40,60   | -       -        0     | -       -        0     yes
tinyimagenet resnet18  at-awp             | 80  40,60   | -       -        0.005 | -       -        0.001 no
# the next file writes tmperature_low, so it does not start; 1.5 is plainly meant
tinyimagenet resnet18  adr                | 80  40,60   | 2.0:1.5 0.5:0.9  0     | 2.0:1.5 0.5:0.9  0     yes
tinyimagenet resnet18  adr-awp            | 80  40,60   | 2.0:1.5 0.5:0.9  0.005 | 2.0:1.5 0.3:0.9  0.001 no
tinyimagenet resnet18  trades             | 80  40,60   | -       -        0     | -       -        0     yes
tinyimagenet resnet18  trades-awp         | 80  40,60   | -       -        0.005 | -       -        0.001 no
tinyimagenet resnet18  trades-adr         | 80  40,60   | 2.0:1.5 0.5:0.9  0     | 2.0:1.5 0.5:0.9  0     yes
tinyimagenet resnet18  trades-adr-awp     | 80  40,60   | 2.0:1.5 0.5:0.9  0.005 | 2.0:1.5 0.5:0.9  0.001 no
tinyimagenet wrn-34-10 at                 | 80  40,60   | -       -        0     | -       -        0     yes
tinyimagenet wrn-34-10 at-awp             | 80  40,60   | -       -        0.005 | -       -        0.001 no
tinyimagenet wrn-34-10 adr                | 80  40,60   | 2.0:1.5 0.5:0.9  0     | 2.0:1.5 0.5:0.9  0     yes
tinyimagenet wrn-34-10 adr-awp            | 80  40,60   | 2.0:1.5 0.5:0.9  0.005 | 2.0:1.5 0.5:0.9  0.001 no
"""  # noqa: E501

DDPM_RUNS = """
# Table 3 with a million synthetic images: 400 epochs' worth of images in 100 epochs of real data
# paper: "other details as in section 5.1", so that section's τ, λ, ρ and Nesterov
# "." = that source has no such run (the code has none on WRN; the paper reports CIFAR-100 only,
# without a baseline of ours, and we do not test what --preset paper says of the two others)
#                                           epochs drops   | paper: τ  λ        ρ     | code: τ   λ        ρ     Nesterov
cifar100     preact-resnet18 adr-awp      | 100 -       | 1.5:1.0 0.7:0.95 0.005 | 3.0:1.5 0.5:0.8  0.005 no
cifar100     wrn-34-10       adr-awp      | 100 -       | 1.5:1.0 0.7:0.95 0.005 | .
cifar100     preact-resnet18 at-awp       | 100 -       | .                      | -       -        0.005 no
cifar10      preact-resnet18 adr-awp      | 100 -       | .                      | 2.5:1.5 0.7:0.85 0.005 no
cifar10      preact-resnet18 at-awp       | 100 -       | .                      | -       -        0.005 no
"""  # noqa: E501

SGD = {"lr_schedule": "multistep", "lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4}
ADR_ALL = SGD | {
    "batch_size": 128, "norm": "linf", "eps": 8 / 255, "attack_steps": 10, "step_size": 2 / 255,
    "ema_decay": 0.995, "normalise": True, "activation": "relu", "extra_data": None,
    "warmup_epochs": 0, "bn_momentum": None, "norm_decay": True, "smoothing": "absent",
    "temperature": "absent", "student_temperature": 1.0,
}  # fmt: skip
# The paper is silent on batch normalisation during the attack, the nets' variant and whose AWP:
# there `--preset paper` must keep to the defaults.
ADR_ONLY: dict[str, dict[str, Any]] = {
    "paper": {"attack_bn": "eval"},
    "repo": {"attack_bn": "train"},
}
DDPM_ALL = {
    "lr_schedule": "cyclic", "lr": 0.4, "warmup_epochs": 2.5, "batch_size": 1024,
    "extra_fraction": 0.75, "activation": "silu", "extra_data": "ddpm.npz",
}  # fmt: skip
DDPM_ONLY: dict[str, dict[str, Any]] = {
    "paper": {},
    "repo": {"bn_momentum": 0.01, "norm_decay": False},
}
# Algorithm 1 starts uniformly in the ball; the TRADES runs start as TRADES does (paper: "β = 6 as
# in the original paper" and no more) or with 0.001·rand (code).
TRADES_ONLY: dict[str, dict[str, Any]] = {
    "paper": {"attack_start": "normal", "joint_batch": False},
    "repo": {
        "attack_start": "positive", "clip_start": False, "joint_batch": True, "bn_passes": "ca",
    },
}  # fmt: skip
# AWP without warm-up in ADR's code; its paper names none, so perturbation from the first epoch.
AWP_ONLY: dict[str, dict[str, Any]] = {
    "paper": {"awp_form": "original", "awp_warmup": 1},
    "repo": {"awp_form": "adr", "awp_warmup": 1},
}
FORM = {"paper": "original", "repo": "deepmind"}


def adr_expected(preset: str, arch: str, method: str, row: str, own: str) -> dict[str, Any]:
    """Put a line's columns, what its kind has in common and what everything has together."""
    epochs, drops = row.split()
    tau, lam, rho, *nesterov = own.split()
    expected = ADR_ALL | ADR_ONLY[preset] | {"epochs": int(epochs), "awp": float(rho)}
    expected |= {"nesterov": nesterov != ["no"], "method": method, "wa": method.endswith("-wa")}
    expected |= {"tau": "absent", "lambda": "absent", "anneal": "absent"}
    if tau != "-":
        expected |= {"tau": parse_span(tau), "lambda": parse_span(lam), "anneal": "cosine"}
    if drops != "-":
        expected["lr_drops"] = tuple(int(drop) for drop in drops.split(","))
    expected |= {"beta": "absent", "inner": "absent", "attack_start": "uniform"}
    if method.startswith("trades"):
        expected |= {"beta": 6.0, "inner": "kl", **TRADES_ONLY[preset]}
    if float(rho):
        expected |= AWP_ONLY[preset]
    if arch != "resnet18":
        expected["form"] = FORM[preset]
    return expected


def lines(table: str) -> Iterator[list[str]]:
    for line in table.strip().splitlines():
        if not line.startswith("#"):
            yield [cell.strip() for cell in line.split("|")]


def adr_runs() -> Iterator[Run]:
    for table, extra in ((ADR_RUNS, {}), (DDPM_RUNS, DDPM)):
        for who, row, *owns in lines(table):
            data, arch, base = who.split()
            for preset, own in zip(PRESETS, owns, strict=True):
                for method in (base, f"{base}-wa"):
                    if own == ".":
                        continue
                    expected = adr_expected(preset, arch, method, row, own)
                    expected |= {**DDPM_ALL, **DDPM_ONLY[preset]} if extra else {}
                    yield Run(preset, data, arch, method, expected, extra)


ADR_ROWS = """
# the paper's tables: data sets, architectures, rows. Left out as other authors': Table 3's Zhang,
# Dong (2), Addepalli (2), Rebuffi, Rade, Chen and Lee, Jia, Sehwag, Cui; Table 5's Rade, Dong,
# Rebuffi. Best and final (Table 1) and the five runs (Table 7) are one training each.
1 | cifar10 cifar100 tinyimagenet | resnet18           | AT, AT+ADR, TRADES, TRADES+ADR
2 | cifar10 cifar100 tinyimagenet | resnet18 wrn-34-10 | AT, AT+WA, AT+WA+AWP, AT+ADR, AT+WA+ADR, AT+WA+AWP+ADR
# "AT+ADR (Ours)" is AT-WA-AWP-ADR, as section 5.4 and the equal figures in Table 2 say
3 | cifar100                      | resnet18 wrn-34-10 | AT+WA+AWP+ADR
3 | cifar100+ddpm                 | preact-resnet18 wrn-34-10 | AT+WA+AWP+ADR
4 | cifar10 cifar100 tinyimagenet | resnet18           | TRADES, TRADES+WA, TRADES+WA+AWP, TRADES+ADR, TRADES+WA+ADR, TRADES+WA+AWP+ADR
# "AT+ADR(Ours)": 20.23 is Table 2's + WA + ADR, 23.33 its + WA + AWP + ADR
5 | tinyimagenet                  | resnet18           | AT, AT+WA+ADR
5 | tinyimagenet                  | wrn-34-10          | AT, AT+WA+AWP+ADR
6 | cifar10 cifar100 tinyimagenet | resnet18 wrn-34-10 | AT, AT+ADR, AT+AWP, AT+AWP+ADR
7 | cifar10                       | resnet18           | AT, AT+ADR
"""  # noqa: E501
METHODS = {
    "AT": "at",
    "AT+WA": "at-wa",
    "AT+AWP": "at-awp",
    "AT+WA+AWP": "at-awp-wa",
    "AT+ADR": "adr",
    "AT+WA+ADR": "adr-wa",
    "AT+AWP+ADR": "adr-awp",
    "AT+WA+AWP+ADR": "adr-awp-wa",
    "TRADES": "trades",
    "TRADES+WA": "trades-wa",
    "TRADES+WA+AWP": "trades-awp-wa",
    "TRADES+ADR": "trades-adr",
    "TRADES+WA+ADR": "trades-adr-wa",
    "TRADES+WA+AWP+ADR": "trades-adr-awp-wa",
}


def adr_rows() -> Iterator[tuple[str, Run]]:
    """Yield each row of ADR's tables under each preset that has it."""
    runs = {run.name: run for run in adr_runs()}
    for table, sets, archs, rows in lines(ADR_ROWS):
        for data in sets.split():
            for arch in archs.split():
                for row in rows.split(", "):
                    plain, ddpm, _ = data.partition("+ddpm")
                    for preset in PRESETS:
                        extra = DDPM if ddpm else {}
                        run = Run(preset, plain, arch, METHODS[row], {}, extra)
                        no_config = preset == "repo" and ddpm and arch == "wrn-34-10"
                        if not no_config:
                            yield f"ADR table {table}: {row}, {run.name}", runs[run.name]


# --- LTD ---------------------------------------------------------------------------------------

LTD_RUNS = """
# Appendix A. "divided by 10 at the end of 80-th and 100th epoch", so the 81st is the first at the
# lower rate: drop 80 as we count. (AWP's own script drops at its 100th of epochs counted from 1,
# one earlier; the paper's words win.) ImageNet ends at 90 epochs, so "50-th and 90th" leaves 50.
# Not in the paper: batch 128 and α = 2/255 (AWP's script), ImageNet's α (our default ε/4).
# ρ and the warm-up of 10 epochs are those of AWP's TRADES script; the paper names neither.
#                             epochs drops  batch decay | ε  steps α (ε and α in 255ths) | ρ
cifar10  wrn-34-10 ltd     | 120 80,100 128 5e-4 | 8 8 2 | 0
cifar10  wrn-34-10 ltd-awp | 120 80,100 128 5e-4 | 8 8 2 | 0.005
cifar10  wrn-34-20 ltd-awp | 120 80,100 128 5e-4 | 8 8 2 | 0.005
cifar100 wrn-34-10 ltd-awp | 120 80,100 128 5e-4 | 8 8 2 | 0.005
imagenet resnet50  ltd     | 90  50     320 1e-4 | 4 6 1 | 0
imagenet wrn-50-2  ltd     | 90  50     320 1e-4 | 4 6 1 | 0
# the teachers: "the same architecture and configurations", natural images, one-hot labels
cifar10  wrn-34-10 natural | 120 80,100 128 5e-4 | - 0 - | 0
cifar10  wrn-34-20 natural | 120 80,100 128 5e-4 | - 0 - | 0
cifar100 wrn-34-10 natural | 120 80,100 128 5e-4 | - 0 - | 0
imagenet resnet50  natural | 90  50     320 1e-4 | - 0 - | 0
imagenet wrn-50-2  natural | 90  50     320 1e-4 | - 0 - | 0
"""
# Pixels go in as they are, in [0, 1] (appendix A.1; TRADES' and AWP's scripts as well). Mixed
# precision (appendix A), which is bfloat16 here.
LTD_ALL: dict[str, Any] = {
    "lr_schedule": "multistep", "lr": 0.1, "momentum": 0.9, "nesterov": True, "normalise": False,
    "warmup_epochs": 0, "bn_momentum": None, "norm_decay": True, "extra_data": None,
    "student_temperature": 1.0, "tau": "absent", "lambda": "absent", "amp": True,
}  # fmt: skip
# λ "is about 6.0" (section 4.1); one pass each for clean and adversarial images, the attack in
# eval mode from 0.001·randn (AWP's TRADES script; the paper is silent).
LTD_ATTACK = {
    "norm": "linf", "beta": 6.0, "attack_bn": "eval", "attack_start": "normal",
    "joint_batch": False, "bn_passes": "acc", "clip_start": False,
}  # fmt: skip
# "crafted using the target model's information and the original label y" (section 4.1), where
# AWP's script ascends KL.
INNER = {"paper": "ce", "repo": "kl"}
OPEN = {"cifar100": {"temperature": 2.0}, "imagenet": {"temperature": 1.0}}
"""A temperature given by hand where the paper states none; any number would do."""


def ltd_expected(run: Run, row: str, attack: str, rho: str) -> dict[str, Any]:
    epochs, drops, batch, decay = row.split()
    eps, steps, alpha = attack.split()
    expected = LTD_ALL | {"method": run.method, "epochs": int(epochs), "batch_size": int(batch)}
    expected["lr_drops"] = tuple(int(drop) for drop in drops.split(","))
    expected |= {"weight_decay": float(decay), "attack_steps": int(steps), "awp": float(rho)}
    if run.data != "imagenet":  # AWP's script trains on the last, smaller batch
        expected["last_batch"] = "keep"
        expected |= {"form": "original", "activation": "relu"}
    if run.method == "natural":
        return expected | {"temperature": "absent", "beta": "absent"}
    expected |= LTD_ATTACK | {"eps": int(eps) / 255, "step_size": int(alpha) / 255}
    expected |= {"inner": INNER[run.preset], "temperature": 5.0, **run.extra}
    if float(rho):
        expected |= {"awp_form": "original", "awp_warmup": 10}
    return expected


def ltd_runs() -> Iterator[Run]:
    """Yield LTD's runs; its code base knows no ImageNet, and we ask nothing of its teachers."""
    for who, row, attack, rho in lines(LTD_RUNS):
        data, arch, method = who.split()
        for preset in PRESETS:
            if preset == "repo" and (data == "imagenet" or method == "natural"):
                continue
            extra = {} if method == "natural" else OPEN.get(data, {})
            run = Run(preset, data, arch, method, {}, extra)
            yield Run(preset, data, arch, method, ltd_expected(run, row, attack, rho), extra)


LTD_ROWS = """
# Left out as other authors': all of Tables 1 to 3 but the starred rows and those of LTD; Table 4's
# first row is TRADES as RobustBench measured it (at ε = 0.031).
1 | cifar10  wrn-34-10 ltd     | -
1 | cifar10  wrn-34-10 ltd-awp | -
1 | cifar10  wrn-34-20 ltd-awp | -
2 | cifar100 wrn-34-10 ltd-awp | -
3 | imagenet wrn-50-2  ltd     | -
3 | imagenet resnet50  ltd     | -
4 | cifar10  wrn-34-10 ltd     | temperature 1 2 3 5 8 10 12 15 20 50
5 | cifar10  wrn-34-10 ltd-awp | beta 3 4 5 6 7
6 | cifar100 wrn-34-10 ltd-awp | beta 3 4 5 6 7
"""


def ltd_rows() -> Iterator[tuple[str, Run]]:
    """Yield each row of LTD's tables under each preset, the varied option given as a flag."""
    for table, who, varied in lines(LTD_ROWS):
        key, *values = varied.split()
        flags = [{key: float(value)} for value in values] or [{}]
        for run in ltd_runs():
            if f"{run.data} {run.arch} {run.method}".split() == who.split():
                for flag in flags:
                    extra = {**run.extra, **flag}
                    expected = {**run.expected, **flag}
                    row = Run(run.preset, run.data, run.arch, run.method, expected, extra)
                    yield f"LTD table {table}: {row.name}", row


RUNS = {run.name: run for run in (*adr_runs(), *ltd_runs())}
ROWS = dict((*adr_rows(), *ltd_rows()))
