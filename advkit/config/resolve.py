"""Options, presets and files resolved into one configuration.

Defaults < default rules < preset < file < flags. Each value remembers where it came from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from advkit import registry
from advkit.artifacts import identity
from advkit.config import methods
from advkit.config.coercion import coerced
from advkit.config.idle import idle
from advkit.config.origins import FLAG, blaming
from advkit.config.settings import (
    BY_MACHINE,
    CHOICES,
    PART_FOLDERS,
    UNTOLD,
    Settings,
    options,
    own_options,
)
from advkit.config.validation import validate
from advkit.errors import UsageError, few
from advkit.registry import split_path

ARCH = {"digits": "small-cnn", "imagenet": "resnet50"}
"""Architecture where none is given; resnet18 for every other data set."""
Defaults = Mapping[str, Mapping[str, object]]
"""Folder → option → default, of the chosen part of each folder."""


@dataclass(frozen=True)
class Resolved:
    """A configuration and, for each value, where it comes from.

    `elsewhere` holds, with a preset, what the other preset says where it says otherwise.
    """

    settings: Settings
    origins: Mapping[str, str]
    elsewhere: Mapping[str, str] = field(default_factory=dict)

    def typed(self, name: str) -> bool:
        """Whether a person asked for a value: by a flag, or in a file of settings."""
        return self.origins.get(name, "").startswith((FLAG, "from "))

    def as_begun(self, unasked: Mapping[str, object]) -> Resolved:
        """Return it with the options that a run in place was begun without, but for given ones."""
        kept = {name: value for name, value in unasked.items() if not self.typed(name)}
        own: dict[str, Any] = {name: kept[name] for name in own_options() if name in kept}
        parts = {
            folder: {name: kept.get(name, value) for name, value in options.items()}
            for folder, options in self.settings.parts.items()
        }
        origins = {**self.origins, **dict.fromkeys(kept, "the run's own")}
        return replace(self, settings=replace(self.settings, **own, parts=parts), origins=origins)

    def on(self, kind: str) -> Resolved:
        """Return it with the defaults of a kind of device: cpu, cuda or mps."""
        defaults, origin = by_machine(kind)
        left = [name for name in BY_MACHINE if name not in self.origins]
        own: dict[str, Any] = {name: defaults[name] for name in left if name in defaults}
        origins = {**self.origins, **dict.fromkeys(left, origin)}
        return replace(self, settings=replace(self.settings, **own), origins=origins)

    def toml(self) -> str:
        """Write it as flat TOML that `--config` reads back, each origin in a comment.

        What the machine decides and nobody has asked it for is left open.
        """
        helps = {option.name: option.help for option in options()}
        lines = []
        for name, value in self.settings.flat().items():
            other = f"; {self.elsewhere[name]}" if name in self.elsewhere else ""
            if value is None or (name in BY_MACHINE and name not in self.origins):
                lines.append(f"# {name} is not set: {helps[name]}{other}")
            else:
                origin = self.origins.get(name, "default")
                lines.append(f"{name} = {_spelt(value)}  # {origin}{other}")
        return "\n".join(lines) + "\n"


def _spelt(value: object) -> str:
    """Return a value as TOML, which spells strings, numbers, booleans and lists as JSON does."""
    return json.dumps(value, ensure_ascii=False)


Layer = tuple[Mapping[str, object], str]
"""Option → value, None where it is not given; and what the layer is called in origins."""


def by_machine(kind: str) -> Layer:
    """Return the defaults of a kind of device, cpu, cuda or mps, as the weakest layer."""
    kinds = BY_MACHINE.items()
    return {name: own[kind] for name, own in kinds if kind in own}, f"default on {kind}"


def labels_of(*layers: Mapping[str, object]) -> str:
    """Return the label source that layers choose, the last one being the strongest."""
    return _chosen(layers, "labels")


def objective_of(*layers: Mapping[str, object]) -> str:
    """Return the objective that layers choose, the last one being the strongest."""
    return _chosen(layers, "objective")


def _chosen(layers: Sequence[Mapping[str, object]], key: str) -> str:
    explicit: dict[str, object] = {}
    for layer in layers:
        _lay(explicit, {}, layer, "")
    named = methods.parse(str(explicit.get("method", Settings.method)))
    return str(explicit.get(key, getattr(named, key)))


def resolve(*layers: Layer, preset: str | None = None) -> Resolved:
    """Resolve one configuration.

    Args:
        layers: what was given, the strongest last.
        preset: paper, repo or ltd.

    Raises:
        UsageError: an unknown key, name or preset, a value out of range, or an option that the
            chosen parts do not have.
    """
    explicit, origins, replaced = _laid(layers)
    with blaming(origins.get("norm")):
        _refuse_stale_eps(layers)
    values: dict[str, Any] = {name: getattr(Settings, name) for name in own_options()}
    values.update(explicit)
    _choose(values, explicit, origins)
    for name in ("default", *([preset] if preset else [])):
        _apply_rules(name, values, explicit, origins)
    parts = _parts(values, origins)
    for key in replaced - _known(parts):  # options of parts that a later method replaced
        explicit.pop(key, None)
    _refuse_strays(explicit, parts, values, origins)
    settings = Settings(
        **{name: values[name] for name in own_options()},
        parts={
            folder: {name: values.get(name, default) for name, default in known.items()}
            for folder, known in parts.items()
        },
    )
    validate(settings, origins)
    elsewhere = _elsewhere(settings, preset, methods.facts(values), explicit) if preset else {}
    return Resolved(settings, origins, elsewhere)


def _laid(layers: Sequence[Layer]) -> tuple[dict[str, object], dict[str, str], set[str]]:
    """Return what the layers say, where each value comes from, and what a later method replaced.

    A method in a stronger layer replaces the parts that weaker layers chose, so that options which
    only those parts have are dropped; in the same or a stronger layer they are strays.
    """
    explicit: dict[str, object] = {}
    origins: dict[str, str] = {}
    replaced: set[str] = set()
    for layer, origin in layers:
        if layer.get("method") is not None:
            replaced = set(explicit)
        _lay(explicit, origins, layer, origin)
        replaced -= {key for key, value in layer.items() if value is not None}
    return explicit, origins, replaced


def _apply_rules(
    preset: str, values: dict[str, Any], explicit: Mapping[str, object], origins: dict[str, str]
) -> None:
    """Let the rules that fit set values: later ones over earlier ones, none over a layer."""
    for rule in methods.fitting(preset, methods.facts(values)):
        for key in set(rule.open) - explicit.keys():
            raise UsageError(
                f"{rule.source} gives no {key} for {split_path(values['data'])[0]}: give "
                f"--{key.replace('_', '-')}"
            )
        for key, value in rule.values.items():
            if key not in explicit:
                values[key], origins[key] = value, rule.source


def _elsewhere(
    settings: Settings, preset: str, facts: Mapping[str, object], explicit: Mapping[str, object]
) -> dict[str, str]:
    """Return where the other preset has another value, as comments."""
    other = "repo" if preset == "paper" else "paper"
    flat = settings.flat()
    remarks = {}
    for rule in methods.rules(other):
        if rule.fits(facts):
            for key, value in rule.values.items():
                same = value == flat.get(key)  # a later rule may take an earlier one back
                remarks[key] = "" if same else f"--preset {other}: {_spelt(value)}"
    return {
        key: text for key, text in remarks.items() if text and key in flat and key not in explicit
    }


def _lay(
    explicit: dict[str, object], origins: dict[str, str], layer: Mapping[str, object], origin: str
) -> None:
    if layer.get("method") is not None:
        for key in (*CHOICES, "awp"):  # a method named later replaces what was chosen earlier
            explicit.pop(key, None)
            origins.pop(key, None)
    arch = layer.get("arch")
    if isinstance(arch, str):  # a file's options are known once it is read
        with blaming(origin):
            layer = {**layer, "arch": registry.arch_named(arch)}
    for key, value in layer.items():
        if value is not None:
            with blaming(origin):
                explicit[key], origins[key] = coerced(key, value), origin


def refuse_idle(flags: Mapping[str, object], settings: Settings) -> None:
    """Refuse flags that nothing in a run would look at, rather than let them seem to work.

    Files hold every option, idle ones too, so that only what was typed is checked.

    Raises:
        UsageError: naming the flag and what it waits for.
    """
    # A digest without a path is of extra data that this run does not have.
    told = {**settings.flat(), "extra_digest": None}
    for key, why in idle(told).items():
        if flags.get(key) is not None:
            raise UsageError(f"--{key.replace('_', '-')} has no effect {why}")


def differences(old: Settings, new: Settings) -> str:
    """Say in one line where two configurations differ; empty where they do not."""
    # What descriptions leave untold has a value all the same, and messages say it.
    told = ({**UNTOLD, **settings.described()} for settings in (old, new))
    return ", ".join(identity.differences(*told))


def _choose(
    values: dict[str, Any], explicit: Mapping[str, object], origins: dict[str, str]
) -> None:
    """Settle objective, labels and weight space; an explicit part beats the named method."""
    with blaming(origins.get("method")):
        named = methods.parse(values["method"])
    for key in CHOICES:
        values[key] = explicit.get(key, getattr(named, key))
        origins.setdefault(key, f"method {values['method']}")
    if named.awp and "awp" not in explicit:
        values["awp"], origins["awp"] = methods.AWP_RADIUS, f"method {values['method']}"
    # The name follows the choices: `--method at --labels adr` is a run of method adr.
    values["method"] = methods.Choices(
        values["objective"], values["labels"], values["wa"], values["awp"] > 0
    ).name
    if not values["data"]:
        names = ", ".join(registry.parts("data"))
        raise UsageError(f"--data is needed: one of {names}")
    if not values["arch"]:
        values["arch"] = ARCH.get(split_path(values["data"])[0], "resnet18")


def _parts(values: Mapping[str, Any], origins: Mapping[str, str]) -> Defaults:
    """Return folder → option → default for the chosen part of each folder."""
    with blaming(origins.get("arch")):
        arch, numbers = registry.split_numbers(values["arch"])
        for option in registry.part("models", arch).options:
            option.check(numbers.get(option.name))
    chosen = {
        "objectives": ("objective", values["objective"]),
        "labels": ("labels", values["labels"]),
        "augment": ("augment", values["augment"]),
        "models": ("arch", arch),
        "data": ("data", split_path(values["data"])[0]),
    }
    defaults = {}
    for folder, (key, name) in chosen.items():
        with blaming(origins.get(key)):
            known = registry.part(folder, name).options
        for option in known:  # its own words and limits; another part's of that name may differ
            with blaming(origins.get(option.name)):
                option.require(values.get(option.name))
        # Depth and width of wrn-34-10 are in its name: as options they would be said twice.
        defaults[folder] = {o.name: o.default for o in known if o.name not in numbers}
    return defaults


def _known(parts: Defaults) -> set[str]:
    return {*own_options(), *(name for names in parts.values() for name in names)}


def _refuse_strays(
    explicit: Mapping[str, object],
    parts: Defaults,
    values: Mapping[str, object],
    origins: Mapping[str, str],
) -> None:
    for key in sorted(explicit.keys() - _known(parts)):
        with blaming(origins.get(key)):
            error = UsageError(
                f"{key.replace('_', '-')} has no meaning for objective {values['objective']}, "
                f"labels {values['labels']}, augment {values['augment']}, arch {values['arch']}, "
                f"data {values['data']}{_owners(key)}"
            )
            raise registry.blaming(error)


def _owners(key: str) -> str:
    """Say which parts have an option, if any has."""
    owners = []
    for folder in PART_FOLDERS:
        parts = registry.parts(folder).values()
        names = [part.name for part in parts if key in {option.name for option in part.options}]
        owners += [f"{registry.NOUNS[folder]} {few(names)}"] if names else []
    return f": it is an option of {', '.join(owners)}" if owners else ""


def _refuse_stale_eps(layers: Sequence[Layer]) -> None:
    """Refuse a norm under which the ε of a weaker layer, rule or default would be read anew."""
    norm, stale = Settings.norm, False
    for layer, _ in layers:
        named = str(layer.get("norm") or norm)
        stale = layer.get("eps") is None and (stale or named != norm)
        norm = named
    if stale:
        raise UsageError(f"--norm {norm}: the eps at hand is one of another norm; give --eps too")
