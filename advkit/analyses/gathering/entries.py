"""One logits file as grouping sees it: its recipe, its attack, and how many were right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

from advkit.analyses.gathering.rows import data_digest, hits
from advkit.analyses.gathering.taught import TAUGHT_BY, Digests, taught_by, teachers
from advkit.artifacts import descriptions, provenance
from advkit.artifacts.hdf5 import Logits
from advkit.artifacts.identity import as_meant
from advkit.artifacts.provenance import canonical
from advkit.config.idle import idle
from advkit.formulas.threat import parse_eps

Settings = Mapping[str, object]
"""Options by name, as descriptions hold them."""
WHATS = ("robust", "clean")
"""The two accuracies of a file."""
POINTS = ("best", "final")
ASIDE = ("data", "seed", "batch_size", "limit", "save_images")
"""What an attack's configuration holds that makes it no other attack."""


@dataclass(frozen=True)
class Entry:
    """One logits file: what was trained and how, how it was attacked, how many were right.

    `hits` are counts of right examples, clean and robust, where they are known; `shown_data` is the
    name of the data judged, which tells it from others of that name. `trained` holds no option that
    did nothing in the training.
    """

    logits: Logits = field(compare=False, repr=False)
    path: str
    role: str
    seed: int | None
    checkpoint: str | None
    method: str
    arch: str
    data: str
    fingerprint: str | None
    n: int
    trained: Settings
    recorded: bool
    taught_by: Digests
    attack: descriptions.Attack
    hits: Mapping[str, int | None]
    training_digest: str | None
    shown_data: str

    @property
    def point(self) -> str:
        """`final`, or `best` for whatever was selected."""
        return "final" if self.role.startswith("final") else "best"


def entry_of(logits: Logits) -> Entry:
    """Return what grouping needs to know of a file."""
    info = logits.info
    checkpoint = info["parents"][0]
    run = info.get("trained")
    # Files of earlier versions say nothing of the training but the temperature.
    recipe: Settings = run or {"temperature": checkpoint.get("temperature")}
    # The attack's data and seed are not the training's: theirs go under other names.
    aside = {"data", "seed", "init_digest", *TAUGHT_BY, *idle(recipe)}
    trained = {name: value for name, value in recipe.items() if name not in aside}
    trained["trained_on"] = recipe.get("data")
    parents = checkpoint.get("parents", [])
    begun = [parent for parent in parents if parent.get("use") == "init"]
    trained["teacher"] = teachers([parent for parent in parents if parent not in begun])
    if begun:
        trained["init"] = begun[0]["digest"]
    return Entry(
        logits=logits,
        path=logits.path,
        role=info["role"],
        seed=checkpoint.get("seed"),
        checkpoint=checkpoint.get("digest"),
        method=info["method"],
        arch=info["arch"],
        data=info["data"]["name"],
        fingerprint=data_digest(logits),
        n=len(logits.labels),
        trained=trained,
        recorded=bool(run),
        taught_by=taught_by(recipe),
        attack=cast(descriptions.Attack, as_meant(info["config"])),
        hits={what: hits(logits, what) for what in WHATS},
        training_digest=provenance.data_digest(checkpoint.get("parents", [])),
        shown_data=info["data"]["name"],
    )


def entries_of(inputs: Sequence[Logits]) -> list[Entry]:
    """Return what grouping needs to know of files; data of one name and two digests get both."""
    entries = [entry_of(logits) for logits in inputs]
    sources = told_apart([(each.trained["trained_on"], each.training_digest) for each in entries])
    judged = told_apart([(each.data, each.fingerprint) for each in entries])
    return [
        replace(entry, shown_data=str(data), trained={**entry.trained, "trained_on": source})
        for entry, source, data in zip(entries, sources, judged, strict=True)
    ]


def told_apart(named: Sequence[tuple[object, str | None]]) -> list[object]:
    """Return names, with eight digits of the digest where several digests share a name.

    >>> told_apart([("photos", "sha256:0a1b2c3d4e"), ("photos", "sha256:ffff"), ("digits", "x")])
    ['photos 0a1b2c3d', 'photos ffff', 'digits']
    """
    digests: dict[object, set[str | None]] = {}
    for name, digest in named:
        digests.setdefault(name, set()).add(digest)
    return [
        name if name is None or len(digests[name]) == 1 else f"{name} {short(digest or '')}".strip()
        for name, digest in named
    ]


def radius(attack: descriptions.Attack) -> float | None:
    """Return ε as a number; None without an attack."""
    return parse_eps(attack["eps"], None) if "eps" in attack else None


def attack_options(attack: descriptions.Attack) -> dict[str, object]:
    """Return what makes an attack another one: its options, ε as a number."""
    options = {name: value for name, value in attack.items() if name not in ASIDE}
    return {**options, "eps": radius(attack)}


def implementation(info: descriptions.Logits) -> str:
    """Say whose attack a file's was, and with how many target classes where it has any.

    >>> implementation({"implementation": "pyautoattack 0.2.0", "target_classes": 9})
    'pyautoattack 0.2.0, 9 targets'
    """
    targets = info.get("target_classes")
    return info["implementation"] + ("" if targets is None else f", {targets} targets")


def differing(configs: Sequence[Settings]) -> list[str]:
    """Return the names whose values are not the same everywhere, sorted.

    >>> differing([{"beta": 6.0, "lr": 0.1}, {"beta": 5.0, "lr": 0.1, "tau": "2:1"}])
    ['beta', 'tau']
    """
    names = sorted({name for config in configs for name in config})
    values = {name: {canonical(config.get(name)) for config in configs} for name in names}
    return [name for name in names if len(values[name]) > 1]


def shown(settings: Settings) -> str:
    """Return settings as text, those that have no value left out.

    >>> shown({"beta": 6.0, "limit": None, "extra_digest": "sha256:0a1b2c3d4e"})
    'beta=6, extra_digest=0a1b2c3d'
    """
    words = []
    for name, value in settings.items():
        parts = value if isinstance(value, list) else [value]
        words += [f"{name}={','.join(map(short, parts))}"] if value is not None else []
    return ", ".join(words)


def short(value: object) -> str:
    """Return a value in few letters: floats as far as they matter, eight digits of a digest."""
    if isinstance(value, float):
        return f"{value:g}"
    text = str(value)
    return text[7:15] if text.startswith("sha256:") else text
