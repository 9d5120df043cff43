"""What a fair comparison holds fixed: training budget, data, net, threat model and examples.

What a method is (objective, label source, weight space, their own options, the seed) is what is
compared; everything else of a run and of its evaluation is its protocol.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from advkit import registry
from advkit.analyses.gathering.entries import (
    Entry,
    Settings,
    attack_options,
    implementation,
    short,
)
from advkit.artifacts.provenance import canonical
from advkit.config.idle import idle
from advkit.config.settings import options
from advkit.errors import UsageError
from advkit.formulas.threat import number, step_size

OWN = (
    *("method", "objective", "labels", "wa", "awp", "awp_form", "awp_warmup", "ema_decay"),
    *("swa_start", "ema_warmup", "ema_norms"),
    *("soft_labels", "teacher", "labels_digest", "student_temperature"),
    *("teacher_digest", "natural_teacher", "natural_teacher_digest"),
    *("clip_start", "logging_pass", "grad_align"),
)
"""The engine's settings that make a method; options of objectives and label sources do too.

`clip_start` and `logging_pass` are part of what a step of TRADES, MART, LTD or AWP is, and follow
from the method.
"""
INNER = (
    *("norm", "eps", "attack_steps", "step_size", "attack_start", "attack_bn"),
    *("train_attack", "start_radius"),
)
"""Settings of the inner attack, which natural training does not make."""
ASIDE = ("seed", "data", "workers", "compile", "compile_mode", "noise")
"""The seed, what has a name of its own here, what changes no result, and where noise is drawn."""
RENAMED = {name: f"trained_{name}" for name in ("norm", "eps", "step_size")}
"""Settings of the training that the evaluation has too."""
RECORDED, UNRECORDED = "recorded", "not recorded"
MANY = 3
"""Names that a note lists one by one."""


class Setting(NamedTuple):
    """One setting: its value as files spell it, and equal keys for equal values.

    An empty key means that it does not apply, and differs from nothing.
    """

    value: object
    key: str


Protocol = Mapping[str, Setting]


def of_method() -> frozenset[str]:
    """Return the names of the settings that make a method."""
    shelves = ("objectives", "labels")
    return frozenset(OWN) | {x.name for each in shelves for x in registry.shared_options(each)}


def _defaults() -> Mapping[str, object]:
    return {option.name: option.default for option in options()}


def training(recipe: Settings) -> dict[str, Setting]:
    """Return the protocol of a training, from its configuration.

    Options that do nothing in it do not apply, whether the configuration names them or not.
    """
    skipped = of_method() | set(ASIDE)
    natural = recipe.get("objective") == "natural" or recipe.get("attack_steps") == 0
    without = (*idle(recipe), *(INNER if natural else ()))
    return {
        RENAMED.get(name, name): Setting(None, "")
        if name in without
        else Setting(recipe[name], _key(name, recipe[name], recipe))
        for name in dict.fromkeys([*recipe, *without])
        if name not in skipped
    }


def answered(entry: Entry) -> dict[str, Setting]:
    """Return what clean outputs depend on: data, net, training and examples."""
    return _net(entry) | _judged(entry)


def evaluated(entry: Entry) -> dict[str, Setting]:
    """Return the protocol of a logits file: data, net, training, attack and examples."""
    found = _net(entry)
    spelt = attack_options(entry.attack)
    for name, value in {**spelt, "eps": entry.attack.get("eps")}.items():
        key = canonical(spelt["eps"]) if name == "eps" else _key(name, value, entry.attack)
        # The clean evaluation has no ball, which differs from none.
        found[name] = Setting(value, "" if value is None else key)
    info = entry.logits.info
    code = {"implementation": implementation(info)} if "implementation" in info else {}
    return found | _judged(entry) | plainly(code)


def _net(entry: Entry) -> dict[str, Setting]:
    recorded = RECORDED if entry.recorded else UNRECORDED
    named = {"data": entry.shown_data, "arch": entry.arch, "training": recorded}
    return plainly(named) | training(entry.trained if entry.recorded else {})


def _judged(entry: Entry) -> dict[str, Setting]:
    return plainly({"n": entry.n, "examples": _examples(entry)})


def plainly(values: Mapping[str, object]) -> dict[str, Setting]:
    """Return settings that have one spelling each."""
    return {name: Setting(value, canonical(value)) for name, value in values.items()}


def _examples(entry: Entry) -> str:
    """Return a digest of which examples a file judges, in their order."""
    raw = entry.logits.index.cpu().numpy().astype("<i8").tobytes()
    return f"sha256:{hashlib.sha256(raw).hexdigest()}"


def _key(name: str, value: object, settings: Settings) -> str:
    """Return equal text for equal settings, however they are spelt."""
    epochs = settings.get("epochs")
    if name == "lr_drops" and isinstance(epochs, int) and value == [epochs // 2, epochs * 3 // 4]:
        value = None  # what it is where it is not given
    try:
        if name == "eps":
            return canonical(number(str(value)))
        if name == "step_size" and value is not None:  # as a share of ε, which differs by itself
            eps = number(str(settings["eps"]))
            return canonical(round(step_size(str(value), eps) / eps, 9))
    except (UsageError, KeyError, ZeroDivisionError):  # a part's own spelling
        pass
    return canonical(value)


def differences(protocols: Sequence[Protocol]) -> dict[str, list[object]]:
    """Return the settings in which things differ, and each thing's own value.

    A setting that a file lacks is at its default: files of earlier versions lack the options that
    came later. None stands for what is absent or does not apply.
    """
    names = list(dict.fromkeys(name for protocol in protocols for name in protocol))
    found = {}
    for name in names:
        own = [_of(protocol, name) for protocol in protocols]
        applied = [setting for setting in own if setting.key]
        # Twice, by value and as spelt: 2/255 is another share of another ε.
        if all(len(set(each)) > 1 for each in _both(applied)):
            found[name] = [setting.value for setting in own]
    if "n" in found:  # other counts are other examples
        found.pop("examples", None)
    return found


def _both(settings: Sequence[Setting]) -> tuple[list[str], list[str]]:
    return [each.key for each in settings], [canonical(each.value) for each in settings]


def _of(protocol: Protocol, name: str) -> Setting:
    if name in protocol:
        return protocol[name]
    trained = {renamed: own for own, renamed in RENAMED.items()}.get(name, name)
    recorded = "training" not in protocol or protocol["training"].value != UNRECORDED
    # Under its plain name such a setting is the attack's, which need not have it.
    known = recorded and name not in RENAMED and trained in _defaults()
    # Without a default, or without any record of the training, nothing is known of it.
    return Setting(None, _key(trained, _defaults()[trained], _defaults()) if known else "")


def alike(first: Sequence[Protocol], second: Sequence[Protocol]) -> bool:
    """Whether all of two sides share one protocol, as far as files say; unrecorded is unknown."""
    every = [*first, *second]
    unknown = any("training" in x and x["training"].value == UNRECORDED for x in every)
    return not unknown and not differences(every)


def plain(differing: Mapping[str, Sequence[object]]) -> dict[str, list[object]]:
    """Return setting → its distinct values, in the order of the things compared."""
    return {name: _distinct(values) for name, values in differing.items()}


def own(differing: Mapping[str, Sequence[object]], places: Sequence[int]) -> dict[str, object]:
    """Return the values of some of the things compared: a list only where these differ."""
    found: dict[str, object] = {}
    for name, values in differing.items():
        distinct = _distinct([values[place] for place in places])
        found[name] = distinct[0] if len(distinct) == 1 else distinct
    return found


def together(several: Sequence[Mapping[str, Sequence[object]]]) -> dict[str, list[object]]:
    """Return setting → its distinct values, over several comparisons that each name their own."""
    found: dict[str, list[object]] = {}
    for differing in several:
        for name, values in differing.items():
            found.setdefault(name, []).extend(values)
    return plain(found)


def _distinct(values: Sequence[object]) -> list[object]:
    return list({canonical(value): value for value in values}.values())


def words(
    differing: Mapping[str, Sequence[object]],
    names: Sequence[str],
    columns: Sequence[str] = (),
) -> str:
    """Return what differs in words: `epochs 30 (at), 6 (adr, mart); n 100 (at, mart), 50 (adr)`.

    Args:
        differing: setting → the value of each thing compared.
        names: of these things.
        columns: settings whose values stand beside the words anyway: named alone.
    """
    bare = [name for name in differing if name in columns]
    parts = [", ".join(bare)] if bare else []
    for name, values in differing.items():
        if name in columns:
            continue
        whose: dict[str, list[str]] = {}
        for value, who in zip(values, names, strict=True):
            whose.setdefault(spelt(value), []).append(who)
        told = [f"{value} ({_listed(list(dict.fromkeys(who)))})" for value, who in whose.items()]
        parts.append(f"{name} {', '.join(told)}")
    return "; ".join(parts)


def _listed(names: Sequence[str]) -> str:
    more = len(names) - MANY
    if more <= 1:
        return "; ".join(names) if any("," in name for name in names) else ", ".join(names)
    return f"{', '.join(names[:MANY])} and {more} more"


def spelt(value: object) -> str:
    """Return a value as a person reads it, – where there is none.

    >>> spelt(None), spelt([15, 22]), spelt(0.1), spelt("sha256:0a1b2c3d4e")
    ('–', '15,22', '0.1', '0a1b2c3d')
    """
    if value is None:
        return "–"
    return ",".join(map(short, value)) if isinstance(value, list) else short(value)
