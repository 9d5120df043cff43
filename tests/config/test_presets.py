"""Presets: each run of both papers gets their numbers, and how presets sit among other layers."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from advkit import registry
from advkit.config.resolve import Resolved, resolve
from advkit.config.settings import Settings
from advkit.errors import UsageError
from advkit.formulas.schedules import parse_span
from advkit.formulas.threat import parse_eps, step_size
from tests.config.preset_tables import ROWS, RUNS, Run, lines


def resolved(run: Run) -> Resolved:
    return resolve((run.flags, "flag"), preset=run.preset)


def comparable(settings: Settings) -> dict[str, Any]:
    """Bring settings that can be spelt in several ways to one: 2/255 or eps/4, 2.5:2 or 2.5:2.0."""
    flat = settings.flat()
    own_start = registry.part("objectives", settings.objective).constants["START"]
    eps = parse_eps(settings.eps, settings.norm)
    flat |= {"eps": eps, "step_size": step_size(settings.step_size, eps)}
    flat |= {key: parse_span(flat[key]) for key in ("tau", "lambda") if key in flat}
    flat["attack_start"] = settings.attack_start or own_start
    flat["lr_drops"] = tuple(drop for drop in settings.drops if drop < settings.epochs)
    flat["warmup_epochs"] = flat.get("warmup_epochs") or 0
    flat["awp_warmup"] = max(1, settings.awp_warmup)  # 0 and 1 both mean: from the first epoch
    return flat


def breaches(runs: dict[str, Run]) -> list[tuple[str, str, Any, Any]]:
    """Return (row, setting, found, expected) of everything that is not as the sources say."""
    wrong = []
    for name, run in runs.items():
        found = comparable(resolved(run).settings)
        wrong += [(name, key, found.get(key, "absent"), value)
                  for key, value in run.expected.items()
                  if found.get(key, "absent") != value]  # fmt: skip
    return wrong


def test_numbers() -> None:
    assert breaches(RUNS) == []


def test_table_rows() -> None:
    assert breaches(ROWS) == []


def test_a_breach_is_told_with_its_row_and_setting() -> None:
    name, run = next(iter(RUNS.items()))
    wrong = replace(run, expected={**run.expected, "epochs": 1})
    assert breaches({name: wrong}) == [(name, "epochs", run.expected["epochs"], 1)]


def test_every_row_is_there() -> None:
    """Counted by hand in the papers: 12, 36, 2 + 2, 18, 4, 24, 2; and 3, 1, 2, 10, 5, 5."""
    paper = [name.split(":")[0] for name, row in ROWS.items() if row.preset == "paper"]
    counts = [paper.count(f"ADR table {table}") for table in range(1, 8)]
    assert counts == [12, 36, 4, 18, 4, 24, 2]
    assert [paper.count(f"LTD table {table}") for table in range(1, 7)] == [3, 1, 2, 10, 5, 5]


NO_NUMBERS = """
# in neither paper nor code
paper      | cifar10      resnet18        mart
repo       | cifar10      resnet18        mart-awp
repo       | cifar100     resnet18        mart
repo       | cifar10      preact-resnet18 mart
ltd        | cifar10      resnet18        trades
ltd        | cifar10      wrn-34-10       at
ltd        | cifar10      wrn-34-10       ltd
ltd        | imagenet     resnet50        trades-awp
repo       | cifar10      wrn-34-10       natural+soft temperature=50
paper repo | cifar10      preact-resnet18 adr
paper repo | cifar100     preact-resnet18 adr-awp-wa
paper repo | cifar10      wrn-28-10       adr
paper repo | cifar10      wrn-28-10       at
paper repo | cifar10      wrn-28-10       ltd
paper repo | cifar10      resnet18        ltd
paper repo | digits       small-cnn       adr
paper repo | tinyimagenet wrn-34-10       ltd         temperature=2
paper repo | imagenet     resnet50        adr
# synthetic images only with the two nets of Table 3
paper repo | cifar100     resnet18        adr-awp-wa  extra_data=ddpm.npz
# published without a configuration, or never run
repo       | cifar10      wrn-34-10       trades
repo       | cifar100     wrn-34-10       trades-adr
repo       | tinyimagenet wrn-34-10       trades-adr-awp-wa
repo       | cifar100     wrn-34-10       adr-awp-wa  extra_data=ddpm.npz
repo       | cifar100     preact-resnet18 adr         extra_data=ddpm.npz
repo       | imagenet     resnet50        ltd         temperature=1
repo       | imagenet     wrn-50-2        ltd         temperature=1
"""


def refused() -> Iterator[tuple[str, dict[str, str]]]:
    for presets, what in lines(NO_NUMBERS):
        data, arch, method, *extra = what.split()
        flags = {"data": data, "arch": arch, "method": method}
        flags |= dict(pair.split("=") for pair in extra)
        yield from ((preset, flags) for preset in presets.split())


def test_no_numbers() -> None:
    cases = list(refused())
    said = {}
    for preset, flags in cases:
        try:
            resolve((flags, "flag"), preset=preset)
        except UsageError as error:
            said[preset, *flags.values()] = str(error)
    wrong = [
        (preset, flags)
        for preset, flags in cases
        if f"--preset {preset} has no numbers" not in said.get((preset, *flags.values()), "")
    ]
    assert wrong == []
    assert len(cases) == len(said) > 20


@pytest.mark.parametrize(
    ("preset", "data", "arch", "method"),
    [
        ("paper", "cifar100", "wrn-34-10", "ltd-awp"),
        ("repo", "cifar100", "wrn-34-10", "ltd-awp"),
        ("paper", "imagenet", "resnet50", "ltd"),
        ("paper", "imagenet", "wrn-50-2", "ltd"),
    ],
)
def test_open_temperature_must_be_given(preset: str, data: str, arch: str, method: str) -> None:
    flags = {"data": data, "arch": arch, "method": method}
    with pytest.raises(UsageError, match="--temperature"):
        resolve((flags, "flag"), preset=preset)
    found = resolve(({"temperature": 1.5}, "my file"), (flags, "flag"), preset=preset)
    assert found.settings.flat()["temperature"] == 1.5


STATED = ("epochs", "batch_size", "lr", "lr_schedule", "momentum", "nesterov", "weight_decay")
ATTACK = ("norm", "eps", "attack_steps")


def stated(run: Run) -> set[str]:
    """Return the settings for which a source gives this run's number, but for those in its flags.

    These must come from the preset even where a default happens to agree with them today.
    """
    keys = {*STATED, *(() if run.method == "natural" else ATTACK)}
    parts = ("tau", "lambda", "beta", "temperature")
    keys |= {key for key in parts if run.expected.get(key, "absent") != "absent"}
    keys |= {"awp"} if run.expected["awp"] else set()
    return keys - run.flags.keys()


def source(run: Run) -> str:
    return "LTD|AWP" if run.method.startswith(("ltd", "natural")) else "ADR|AWP"


def test_origins_name_the_source() -> None:
    wrong = []
    for name, run in RUNS.items():
        origins = resolved(run).origins
        wrong += [(name, key, "no origin") for key in stated(run) - origins.keys()]
        chosen = {key for key in origins if key in ("objective", "labels", "wa")} | run.flags.keys()
        if run.method == "natural":
            chosen.add("attack_steps")  # there is nothing to attack, whoever says so
        if run.preset == "paper" and run.method.startswith("trades"):
            chosen |= {"bn_passes", "clip_start"}  # ADR's paper is silent: TRADES' own step
        wrong += [(name, key, origins[key]) for key in origins.keys() - chosen
                  if not re.search(source(run), origins[key])]  # fmt: skip
    assert wrong == []


def test_toml_reads_back() -> None:
    """What `--print-config` writes is the same run, with or without the preset named again."""
    wrong = []
    for name, run in RUNS.items():
        found = resolved(run)
        written = tomllib.loads(found.toml())
        wrong += [
            (name, preset)
            for preset in (None, run.preset)
            if resolve((written, "my file"), preset=preset).settings != found.settings
        ]
    assert wrong == []


def test_flags_beat_file_beats_preset() -> None:
    file: dict[str, Any] = {"epochs": 7, "lr": 0.5, "ema_decay": 0.9}
    wrong = []
    for name, run in RUNS.items():
        flags = {**run.flags, "epochs": 3}
        found = resolve((file, "my file"), (flags, "flag"), preset=run.preset)
        values, origins = found.settings.flat(), found.origins
        decay = run.expected["weight_decay"]
        ours = [values[key] for key in ("epochs", "lr", "ema_decay", "weight_decay")]
        said = [origins[key] for key in ("epochs", "lr")]
        if (ours, said) != ([3, 0.5, 0.9, decay], ["flag", "my file"]):
            wrong.append((name, ours, said))
        if not re.search(source(run), origins["weight_decay"]):
            wrong.append((name, "weight_decay", origins["weight_decay"]))
    assert wrong == []


# --- what is in no table of ADR or LTD ---


def found(preset: str, **flags: Any) -> dict[str, Any]:
    return comparable(resolve((flags, "flag"), preset=preset).settings)


MART = {
    # train_wideresnet.py and train_resnet.py count epochs from 1 and lower the rate as one begins.
    "wrn-34-10": {"epochs": 76, "lr": 0.1, "lr_drops": (74,), "weight_decay": 2e-4, "beta": 6.0},
    "resnet18": {"epochs": 120, "lr": 0.01, "lr_drops": (74, 89, 99), "weight_decay": 3.5e-3,
                 "beta": 5.0},
}  # fmt: skip
MART_ALL = {
    "batch_size": 128, "momentum": 0.9, "nesterov": False, "normalise": False, "attack_steps": 10,
    "eps": 0.031, "step_size": 0.007, "norm": "linf", "attack_bn": "eval", "awp": 0.0,
    "attack_start": "normal", "clip_start": False, "last_batch": "keep", "amp": False,
    "activation": "relu", "lr_schedule": "multistep",
}  # fmt: skip
"""Typed off YisenWang/MART's scripts, whose shown defaults are their runs'."""


@pytest.mark.parametrize("arch", MART)
@pytest.mark.parametrize("method", ["mart", "mart-wa"])
def test_mart_s_numbers_are_its_code_s(arch: str, method: str) -> None:
    settings = found("repo", data="cifar10", arch=arch, method=method)
    wanted = MART_ALL | MART[arch]
    assert {key: settings[key] for key in wanted} == wanted
    origins = resolve(({"data": "cifar10", "arch": arch, "method": method}, "flag"),
                      preset="repo").origins  # fmt: skip
    assert all("MART's code" in origins[key] for key in ("epochs", "lr", "beta", "eps"))


@pytest.mark.parametrize(("data", "arch"), [("cifar10", "wrn-34-10"), ("cifar10", "wrn-34-20"),
                                            ("cifar100", "wrn-34-10")])  # fmt: skip
@pytest.mark.parametrize("awp", ["", "-awp"])
def test_ltd_s_competitors_train_as_ltd_does_but_for_labels_and_inner_attack(
    data: str, arch: str, awp: str
) -> None:
    theirs = found("ltd", data=data, arch=arch, method=f"trades{awp}")
    ltd = found("paper", data=data, arch=arch, method=f"ltd{awp}", temperature=5.0)
    differ = {key for key in theirs.keys() | ltd.keys() if theirs.get(key) != ltd.get(key)}
    own = {"method", "labels", "temperature", "inner"}
    # Without AWP TRADES' own code counts BN's passes in another order (clean first).
    assert differ == (own if awp else {*own, "bn_passes"})
    assert (theirs["inner"], theirs["beta"], theirs["attack_steps"]) == ("kl", 6.0, 8)


@pytest.mark.parametrize("arch", ["resnet50", "wrn-50-2"])
def test_trades_on_imagenet_as_ltd_trains(arch: str) -> None:
    theirs = found("ltd", data="imagenet", arch=arch, method="trades")
    ltd = found("paper", data="imagenet", arch=arch, method="ltd", temperature=1.0)
    differ = {key for key in theirs.keys() | ltd.keys() if theirs.get(key) != ltd.get(key)}
    assert differ == {"method", "labels", "temperature", "inner", "bn_passes"}


def test_substitutes_train_as_teachers_do_on_soft_labels() -> None:
    """Table 4's T = 50: natural images, soft labels, the student's settings."""
    flags = {"data": "cifar10", "arch": "wrn-34-10"}
    with pytest.raises(UsageError, match="--temperature"):
        resolve(({**flags, "method": "natural+soft"}, "flag"), preset="paper")
    ours = found("paper", **flags, method="natural+soft", temperature=50.0)
    teacher = found("paper", **flags, method="natural")
    differ = {key for key in ours.keys() | teacher.keys() if ours.get(key) != teacher.get(key)}
    assert differ == {"method", "labels", "temperature"}
    assert (ours["temperature"], ours["epochs"], ours["attack_steps"]) == (50.0, 120, 0)


def test_the_third_preset_is_beside_the_paper_s() -> None:
    flags = {"data": "cifar10", "arch": "wrn-34-10", "method": "trades"}
    text = resolve((flags, "flag"), preset="ltd").toml()
    assert re.search(r"^epochs = 120  # LTD, appendix A.*; --preset paper: 200$", text, re.M)
    other = resolve((flags, "flag"), preset="paper").toml()
    assert "--preset ltd" not in other
