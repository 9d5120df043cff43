"""Logits files grouped as papers do: a line a recipe and attack, over seeds, best and final."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from advkit.artifacts.hdf5 import ROBUST, Logits
from advkit.artifacts.provenance import canonical
from advkit.artifacts.rows import argmax
from advkit.errors import InputError, MismatchError
from advkit.formulas.stats import wilson
from advkit.formulas.threat import parse_eps

POINTS = ("best", "final")
OWN = ("attack", "norm", "eps", "steps")
"""What the label of an attack always shows."""
ASIDE = ("data", "seed", "batch_size", "limit", "save_images")
"""What an attack's configuration holds that makes it no other attack."""


@dataclass(frozen=True)
class Entry:
    """One logits file: what was trained and how, how it was attacked, how many were right."""

    path: str
    role: str
    seed: int | None
    method: str
    arch: str
    data: str
    fingerprint: str | None
    n: int
    trained: Mapping[str, Any]
    recorded: bool
    labels_digest: str | None
    attack: Mapping[str, Any]
    clean: int | None
    robust: int | None

    @property
    def point(self) -> str:
        """`final`, or `best` for whatever was selected."""
        return "final" if self.role.startswith("final") else "best"

    @property
    def family(self) -> tuple[Any, ...]:
        """Files that are compared by the settings in which they differ."""
        return self.data, self.arch, self.method, self.recorded


@dataclass
class Group:
    """One line of the table."""

    number: int
    labels: Mapping[str, Any]
    entries: list[Entry] = field(default_factory=list)

    def add(self, entry: Entry) -> None:
        """Take one more file.

        Raises:
            MismatchError: it was judged on other examples than the rest.
            InputError: this seed and role is there already.
        """
        for other in self.entries:
            pair = f"{other.path} and {entry.path}"
            if other.n != entry.n:
                raise MismatchError(
                    f"{pair}: {other.n} and {entry.n} examples cannot share a line of the table"
                )
            if other.fingerprint != entry.fingerprint:
                raise MismatchError(
                    f"{pair}: other images, both called {entry.data}, cannot share a line of the "
                    "table"
                )
            if (other.seed, other.point) == (entry.seed, entry.point):
                raise InputError(
                    f"{pair}: both are the {entry.point} one of seed {entry.seed} under the same "
                    "settings and attack: give one of them"
                )
        self.entries.append(entry)

    @property
    def n(self) -> int:
        """Examples in each file."""
        return self.entries[0].n

    def plain(self) -> dict[str, Any]:
        """Return labels and figures: for robust and clean accuracy, best, final and difference.

        Each has `_mean`, `_sd` and `_variance` (sample standard deviation over seeds and its
        square, None for one seed), `_min`, `_max` and `_seeds`; best and final of one seed have
        `_ci95`, the Wilson interval. The difference is
        best − final of each seed that has both. In [0, 1]; None where nothing is known.
        """
        seeds = len({entry.seed for entry in self.entries})
        row = {"group": self.number, **self.labels, "n": self.n, "seeds": seeds}
        for what in ("robust", "clean"):
            hits = {point: self._hits(what, point) for point in POINTS}
            for point, of_seed in hits.items():
                row |= _summary(f"{what}_{point}", list(of_seed.values()), self.n)
                one = list(of_seed.values()) if len(of_seed) == 1 else []
                row[f"{what}_{point}_ci95"] = list(wilson(one[0], self.n)) if one else None
            best, final = hits.values()
            both = [best[seed] - final[seed] for seed in best if seed in final]
            row |= _summary(f"{what}_difference", both, self.n)
        return row

    def _hits(self, what: str, point: str) -> dict[int | None, int]:
        """Return seed → right answers."""
        by_seed = {each.seed: getattr(each, what) for each in self.entries if each.point == point}
        return {seed: hits for seed, hits in by_seed.items() if hits is not None}


def grouped(inputs: Sequence[Logits]) -> list[tuple[Entry, Group]]:
    """Return each file, in the order given, with its group; groups count in that order too.

    Raises:
        InputError, MismatchError: see `Group.add`.
    """
    entries = [_entry(logits) for logits in inputs]
    groups: dict[str, Group] = {}
    pairs = []
    for entry, settings, options in zip(
        entries, _settings(entries), _attack_settings(entries), strict=True
    ):
        config = entry.attack
        labels = {
            "data": entry.data,
            "arch": entry.arch,
            "method": entry.method,
            "weights": "average" if entry.role.endswith("-ema") else "student",
            "settings": settings,
            "settings_recorded": entry.recorded,
            **{name: config.get(name) for name in OWN},
            "attack_settings": options,
        }
        eps = parse_eps(config["eps"], config["norm"]) if "eps" in config else None
        key = canonical({**labels, "eps": eps})
        group = groups.setdefault(key, Group(len(groups) + 1, labels))
        group.add(entry)
        pairs.append((entry, group))
    return pairs


def implementation(info: Mapping[str, Any]) -> str:
    """Say whose attack a file's was, and with how many target classes where it has any.

    >>> implementation({"implementation": "pyautoattack 0.2.0", "target_classes": 9})
    'pyautoattack 0.2.0, 9 targets'
    """
    targets = info.get("target_classes")
    return str(info["implementation"]) + ("" if targets is None else f", {targets} targets")


def differing(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names whose values are not the same everywhere, sorted.

    >>> differing([{"beta": 6.0, "lr": 0.1}, {"beta": 5.0, "lr": 0.1, "tau": "2:1"}])
    ['beta', 'tau']
    """
    names = sorted({name for each in configs for name in each})
    return [name for name in names if len({canonical(each.get(name)) for each in configs}) > 1]


def shown(settings: Mapping[str, Any]) -> str:
    """Return settings as text, those that have no value left out.

    >>> shown({"beta": 6.0, "limit": None, "extra_digest": "sha256:0a1b2c3d4e"})
    'beta=6, extra_digest=0a1b2c3d'
    """
    words = []
    for name, value in settings.items():
        each = value if isinstance(value, list) else [value]
        cells = (_short(part) for part in each)
        words += [f"{name}={','.join(cells)}"] if value is not None else []
    return ", ".join(words)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    text = str(value)
    return text[7:15] if text.startswith("sha256:") else text


def _entry(logits: Logits) -> Entry:
    info, n = logits.info, len(logits.labels)
    parents = info["parents"]
    checkpoint = parents[0]
    recipe = info.get("trained") or {"temperature": checkpoint.get("temperature")}
    trained: dict[str, Any] = {**recipe}
    trained["trained_on"] = trained.pop("data", None)
    trained["teacher"] = _teacher(checkpoint.get("parents", []))
    digest = trained.pop("labels_digest", None)
    clean = robust = None
    if bool((logits.labels >= 0).all()):
        clean = int((argmax(logits.clean) == logits.labels).sum())
        if logits.broken_by is not None:
            robust = int((logits.broken_by == ROBUST).sum())
    return Entry(
        path=logits.path,
        role=info["role"],
        seed=checkpoint.get("seed"),
        method=info["method"],
        arch=info["arch"],
        data=info["data"]["name"],
        fingerprint=next((each["digest"] for each in parents if each["kind"] == "data"), None),
        n=n,
        trained={name: value for name, value in trained.items() if name != "seed"},
        recorded=bool(info.get("trained")),
        labels_digest=digest,
        attack=info["config"],
        clean=clean,
        robust=robust,
    )


def _teacher(parents: Sequence[Mapping[str, Any]]) -> str | None:
    """Return what gave the soft labels, without its seed: kind, method and architecture."""
    for each in parents:
        if each["kind"] != "data":
            return " ".join(str(each.get(key)) for key in ("kind", "method", "arch"))
    return None


def _settings(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """Return for each file the training settings in which its family differs.

    A file of soft labels is such a setting, unless each seed has its own: then its teacher was
    trained seed by seed, and the files are runs of one recipe.
    """
    families: dict[tuple[Any, ...], list[Entry]] = defaultdict(list)
    for entry in entries:
        families[entry.family].append(entry)
    names = {key: differing([each.trained for each in of]) for key, of in families.items()}
    settings = [{name: each.trained.get(name) for name in names[each.family]} for each in entries]
    pairs: dict[str, set[tuple[Any, Any]]] = defaultdict(set)
    keys = [canonical([each.family, own]) for each, own in zip(entries, settings, strict=True)]
    for key, entry in zip(keys, entries, strict=True):
        pairs[key].add((entry.seed, entry.labels_digest))
    for key, entry, own in zip(keys, entries, settings, strict=True):
        seeds, digests = ({pair[place] for pair in pairs[key]} for place in (0, 1))
        if len(digests) > 1 and not len(pairs[key]) == len(seeds) == len(digests):
            own["labels_digest"] = (entry.labels_digest or "")[:15]
    return settings


def _attack_settings(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """Return for each file the options in which files of the same attack differ."""
    families: dict[str, list[dict[str, Any]]] = defaultdict(list)
    options = [
        {name: value for name, value in each.attack.items() if name not in (*OWN, *ASIDE)}
        for each in entries
    ]
    for entry, own in zip(entries, options, strict=True):
        families[entry.attack["attack"]].append(own)
    names = {attack: differing(of) for attack, of in families.items()}
    return [
        {name: own.get(name) for name in names[entry.attack["attack"]]}
        for entry, own in zip(entries, options, strict=True)
    ]


def _summary(name: str, hits: Sequence[int], n: int) -> dict[str, Any]:
    shares = [each / n for each in hits]
    return {
        f"{name}_mean": statistics.fmean(shares) if shares else None,
        f"{name}_sd": statistics.stdev(shares) if len(shares) > 1 else None,
        f"{name}_variance": statistics.variance(shares) if len(shares) > 1 else None,
        f"{name}_min": min(shares, default=None),
        f"{name}_max": max(shares, default=None),
        f"{name}_seeds": len(shares),
    }
