"""Settings of a training run: options, presets and files resolved into one configuration.

Defaults < default rules < preset < file < flags. Each value remembers where it came from.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from advkit import method, registry
from advkit.errors import InputError, UsageError, unknown
from advkit.modes import ATTACK_BN
from advkit.registry import Option, split_path
from advkit.schedules import LR_SCHEDULES
from advkit.threat import NORMS, STARTS, parse_eps, step_size

METHOD, DATA, ATTACK, OPTIMISER, RUN = "Method", "Data", "Inner attack", "Optimisation", "Run"
PART_FOLDERS = ("objectives", "labels", "models", "data")
PATHS = ("soft_labels", "teacher")
CHOICES = ("objective", "labels", "wa")
ARCH = {"digits": "small-cnn"}
"""Architecture where none is given; resnet18 for every other data set."""


def _option(
    default: Any, panel: str, text: str, choices: tuple[str, ...] = (), kind: str = ""
) -> Any:
    return field(
        default=default, metadata={"panel": panel, "help": text, "choices": choices, "kind": kind}
    )


@dataclass(frozen=True)
class Settings:
    """What the training engine itself needs; `parts` holds the options of the chosen parts."""

    method: str = _option("at", METHOD, "named objective, labels and weight space")
    objective: str = _option("at", METHOD, "what attack and student optimise")
    labels: str = _option("onehot", METHOD, "what the student is asked to say")
    wa: bool = _option(False, METHOD, "select and report the weight average as well")
    ema_decay: float = _option(0.995, METHOD, "γ of the weight average and of ADR's teacher")
    soft_labels: str | None = _option(None, METHOD, "labels file of `advkit softlabels`")
    teacher: str | None = _option(None, METHOD, "teacher that gives soft labels on the fly")
    labels_digest: str | None = _option(
        None, METHOD, "digest that the labels file or teacher must have; a run fills it in"
    )
    student_temperature: float = _option(
        1.0, METHOD, "other than 1 only to show defensive distillation's masking"
    )
    data: str = _option("", DATA, "data set, NAME or NAME:PATH")
    limit: int | None = _option(None, DATA, "first N training examples, class balanced")
    val_size: int | None = _option(
        None, DATA, "examples set aside for selection; a fifth of them, at most 1024, if not given"
    )
    split_seed: int = _option(0, DATA, "seed of the validation split")
    arch: str = _option("", METHOD, "architecture")
    epochs: int = _option(200, OPTIMISER, "passes over the training examples")
    batch_size: int = _option(128, OPTIMISER, "examples in a batch")
    lr: float = _option(0.1, OPTIMISER, "initial learning rate")
    lr_schedule: str = _option("multistep", OPTIMISER, "how the rate falls", LR_SCHEDULES)
    lr_drops: list[int] | None = _option(
        None,
        OPTIMISER,
        "epochs at whose start the rate is divided by 10; half and three quarters if not given",
        kind="ints",
    )
    momentum: float = _option(0.9, OPTIMISER, "of SGD")
    nesterov: bool = _option(True, OPTIMISER, "Nesterov momentum")
    weight_decay: float = _option(5e-4, OPTIMISER, "on every parameter")
    norm: str = _option("linf", ATTACK, "norm of the perturbation", NORMS)
    eps: str = _option("8/255", ATTACK, "radius ε in pixel space [0, 1]")
    attack_steps: int = _option(10, ATTACK, "gradient steps of the inner attack; 0 for none")
    step_size: str = _option("eps/4", ATTACK, "step α in pixel space, or a share of ε")
    attack_start: str | None = _option(
        None, ATTACK, "first iterate; the objective's own if not given", STARTS
    )
    attack_bn: str = _option("eval", ATTACK, "batch normalisation during the attack", ATTACK_BN)
    seed: int = _option(0, RUN, "seed of weights, order, crops and noise")
    parts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def options_of(self, folder: str) -> dict[str, Any]:
        """Options of the chosen part of a folder, as its functions take them."""
        return dict(self.parts.get(folder, {}))

    @property
    def data_name(self) -> str:
        """The data set without its path."""
        return split_path(self.data)[0]

    def flat(self) -> dict[str, Any]:
        """Every value under its option name, parts included; None where it is left open."""
        flat = {name: getattr(self, name) for name in _own()}
        for options in self.parts.values():
            flat.update(options)
        return flat

    @property
    def drops(self) -> tuple[int, ...]:
        """Epochs at whose start the learning rate falls."""
        if self.lr_drops is not None:
            return tuple(self.lr_drops)
        return self.epochs // 2, self.epochs * 3 // 4

    @property
    def run_name(self) -> str:
        """DATA-ARCH-METHOD-sSEED, safe as a folder's name."""
        name, path = split_path(self.data)
        data = f"{name}-{Path(path).resolve().name}" if path else name
        text = f"{data}-{self.arch}-{self.method}-s{self.seed}"
        return re.sub(r"[^\w.+-]+", "_", text)

    def described(self) -> dict[str, Any]:
        """The configuration as artifacts carry it: without paths."""
        flat = {key: value for key, value in self.flat().items() if key not in PATHS}
        return {**flat, "data": self.data_name}


@dataclass(frozen=True)
class Resolved:
    """A configuration and, for each value, where it comes from."""

    settings: Settings
    origins: Mapping[str, str]

    def toml(self) -> str:
        """Write it as flat TOML that `--config` reads back, each origin in a comment."""
        helps = {option.name: option.help for option in options()}
        lines = []
        for name, value in self.settings.flat().items():
            if value is None:
                lines.append(f"# {name} is not set: {helps[name]}")
            else:
                # JSON's spelling of strings, numbers, booleans and lists is TOML's as well.
                text = json.dumps(value, ensure_ascii=False)
                lines.append(f"{name} = {text}  # {self.origins.get(name, 'default')}")
        return "\n".join(lines) + "\n"


@cache
def _own() -> tuple[str, ...]:
    return tuple(each.name for each in dataclasses.fields(Settings) if each.name != "parts")


@cache
def options() -> tuple[Option, ...]:
    """Every option of a training run: the engine's own, then those of all parts."""
    found: dict[str, Option] = {}
    for each in dataclasses.fields(Settings):
        if each.name == "parts":
            continue
        meta = each.metadata
        kind = meta["kind"] or str(each.type).removesuffix(" | None")
        found[each.name] = Option(
            each.name, kind, each.default, meta["help"], meta["panel"], meta["choices"]
        )
    for folder in PART_FOLDERS:
        found.update({option.name: option for option in registry.shared_options(folder)})
    return tuple(found.values())


def read(path: Path) -> dict[str, Any]:
    """Read a configuration file.

    Raises:
        InputError: missing or not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such configuration file") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path}: not a TOML file: {error}") from None


Layer = tuple[Mapping[str, Any], str]
"""Option → value, None where it is not given; and what the layer is called in origins."""


def labels_of(*layers: Mapping[str, Any]) -> str:
    """Return the label source that layers choose, the last one being the strongest."""
    given: dict[str, Any] = {}
    for layer in layers:
        _lay(given, {}, layer, "")
    named = method.parse(given.get("method", Settings.method))
    return str(given.get("labels", named.labels))


def resolve(*layers: Layer, preset: str | None = None) -> Resolved:
    """Resolve one configuration.

    Args:
        layers: what was given, the strongest last.
        preset: paper or repo.

    Raises:
        UsageError: an unknown key, name or preset, a value out of range, or an option that the
            chosen parts do not have.
    """
    given: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for layer, origin in layers:
        _lay(given, origins, layer, origin)
    values: dict[str, Any] = {name: getattr(Settings, name) for name in _own()}
    values.update(given)
    _choose(values, given)
    for name in ("default", *([preset] if preset else [])):
        for rule in method.fitting(name, {**values, "data": split_path(values["data"])[0]}):
            for key, value in rule.values.items():
                if key not in given:
                    values[key], origins[key] = value, rule.source
    parts = _parts(values)
    _refuse_strays(given, parts, values)
    settings = Settings(
        **{name: values[name] for name in _own()},
        parts={
            folder: {name: values.get(name, default) for name, default in known.items()}
            for folder, known in parts.items()
        },
    )
    _validate(settings)
    return Resolved(settings, origins)


def _lay(
    given: dict[str, Any], origins: dict[str, str], layer: Mapping[str, Any], origin: str
) -> None:
    if layer.get("method") is not None:
        for key in CHOICES:  # a method named later replaces the parts chosen earlier
            given.pop(key, None)
    for key, value in layer.items():
        if value is not None:
            given[key], origins[key] = coerced(key, value), origin


def coerced(key: str, value: Any) -> Any:
    """Bring a value from TOML or the command line to its option's type.

    >>> coerced("lr_drops", "100,150"), coerced("eps", 0.5), coerced("lr", 1)
    ([100, 150], '0.5', 1.0)

    Raises:
        UsageError: an unknown key, or a value that does not fit.
    """
    known = {option.name: option for option in options()}
    if key not in known:
        raise unknown("option", key, known)
    option = known[key]
    try:
        fitted = _FIT[option.kind](value)
    except (TypeError, ValueError):
        raise UsageError(f"{key} = {value!r} is not a valid {option.kind}") from None
    if option.choices and fitted not in option.choices:
        raise unknown(key.replace("_", "-"), str(fitted), option.choices)
    return fitted


def differences(old: Settings, new: Settings) -> str:
    """Say in one line where two configurations differ; empty where they do not."""
    before, after = old.described(), new.described()
    keys = sorted(before.keys() | after.keys())
    changed = [key for key in keys if before.get(key) != after.get(key)]
    return ", ".join(f"{key}: {before.get(key)} -> {after.get(key)}" for key in changed)


def _integer(value: Any) -> int:
    if isinstance(value, bool) or int(value) != float(value):
        raise ValueError
    return int(value)


def _real(value: Any) -> float:
    if isinstance(value, bool) or not math.isfinite(float(value)):
        raise ValueError
    return float(value)


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def _integers(value: Any) -> list[int]:
    words = [word for word in value.split(",") if word] if isinstance(value, str) else value
    return [_integer(word) for word in words]


_FIT: Mapping[str, Callable[[Any], Any]] = {
    "int": _integer,
    "float": _real,
    "bool": _boolean,
    "ints": _integers,
    "str": str,
}


def _choose(values: dict[str, Any], given: Mapping[str, Any]) -> None:
    """Settle objective, labels and weight space; an explicit part beats the named method."""
    named = method.parse(values["method"])
    for key in CHOICES:
        values[key] = given.get(key, getattr(named, key))
    values["method"] = method.Choices(values["objective"], values["labels"], values["wa"]).name
    if not values["data"]:
        names = ", ".join(registry.parts("data"))
        raise UsageError(f"--data is needed: one of {names}")
    if not values["arch"]:
        values["arch"] = ARCH.get(split_path(values["data"])[0], "resnet18")


def _parts(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return folder → option → default for the chosen part of each folder."""
    arch, numbers = registry.split_numbers(values["arch"])
    chosen = {
        "objectives": values["objective"],
        "labels": values["labels"],
        "models": arch,
        "data": split_path(values["data"])[0],
    }
    return {
        folder: {
            option.name: option.default
            for option in registry.part(folder, name).options
            if option.name not in numbers
        }
        for folder, name in chosen.items()
    }


def _refuse_strays(
    given: Mapping[str, Any], parts: Mapping[str, Mapping[str, Any]], values: Mapping[str, Any]
) -> None:
    known = {*_own(), *(name for options in parts.values() for name in options)}
    for key in given.keys() - known:
        raise UsageError(
            f"{key.replace('_', '-')} has no meaning for objective {values['objective']}, "
            f"labels {values['labels']}, arch {values['arch']}, data {values['data']}"
        )


def _validate(settings: Settings) -> None:
    if settings.val_size is not None and settings.val_size < 1:
        raise UsageError("--val-size must be at least 1")
    least = {"epochs": 1, "batch_size": 1, "attack_steps": 0, "weight_decay": 0, "momentum": 0}
    for name, minimum in least.items():
        if getattr(settings, name) < minimum:
            raise UsageError(f"--{name.replace('_', '-')} must be at least {minimum}")
    for name, value in settings.options_of("models").items():
        if isinstance(value, int) and value < 1:
            raise UsageError(f"--{name} must be at least 1")
    if settings.labels != "soft" and (settings.soft_labels or settings.teacher):
        raise UsageError("--soft-labels and --teacher belong to --labels soft")
    if settings.soft_labels and settings.teacher:
        raise UsageError("give --soft-labels or --teacher, not both")
    if not settings.student_temperature > 0:
        raise UsageError("--student-temperature must be above 0")
    if not settings.lr > 0:
        raise UsageError("--lr must be above 0")
    step_size(settings.step_size, parse_eps(settings.eps, settings.norm))
