"""Folders of parts: what exists, its help and its options, read without importing anything.

A part is a file. Its name is the file's stem with `_` as `-`; files that start with `_` are
private. The first docstring line is its help. The keyword-only parameters *with a default* of
its entry functions are its options (`lambda_` is `--lambda`), and the `Args:` block of their
docstrings is the options' help; keyword-only parameters without a default are what the engine
supplies. Upper-case names at the top of the file are its declarations (`declarations`). All of it
comes from the syntax tree, so listing parts never loads torch.

Beside advkit's own folders there are those of other people, of the same shape; see `places`.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType

from advkit.errors import UsageError, near, unknown
from advkit.options import Option
from advkit.registry import places
from advkit.registry.importing import imported
from advkit.registry.places import Place
from advkit.registry.reading import OWN, Part, name_of, read

__all__ = [
    "NOUNS",
    "OUTSIDE",
    "ROOT",
    "Part",
    "arch_named",
    "blaming",
    "clash",
    "declarations",
    "foreign",
    "generation",
    "is_outside",
    "load",
    "part",
    "parts",
    "places",
    "shared_options",
    "sources",
    "split_numbers",
    "split_path",
    "use",
    "using",
]

ROOT = Path(__file__).parents[1]

CONTRACTS: dict[str, dict[str, tuple[str, ...]]] = {
    "data": {"load": ("root", "split")},
    "models": {"build": ("classes",)},
    "augment": {"draw": ("n", "shape"), "apply": ("images", "drawn")},
    "labels": {"targets": ("batch", "context")},
    "objectives": {
        "inner": ("logits", "given"),
        "outer": ("model", "x", "x_adv", "given"),
    },
    "attacks": {"attack": ("model", "x", "y", "threat")},
    "analyses": {"analyze": ("inputs",)},
}
"""Folder → entry functions → their positional parameters."""
_MEMORY = {
    "memory": ("y", "classes"),
    "update": ("memory", "index", "y", "told", "epoch"),
}
OPTIONAL: dict[str, dict[str, tuple[str, ...]]] = {"labels": _MEMORY, "objectives": _MEMORY}
"""Folder → functions that a part has all of or none → their positional parameters."""

NOUNS = {
    "data": "data set",
    "models": "architecture",
    "augment": "augmentation",
    "labels": "label source",
    "objectives": "objective",
    "attacks": "attack",
    "analyses": "analysis",
}


OUTSIDE = ("torchvision", "timm")
"""Packages whose nets are architectures too, as PACKAGE:NAME."""


_named: list[Place] = []
"""Places that were named in this process, beside those of the environment and of packages."""
_generation = 0
_foreign_read = False


@cache
def parts(folder: str) -> dict[str, Part]:
    """Every part of a folder by name, in alphabetical order.

    Raises:
        UsageError: two files have one name; or a place of parts is not there.
    """
    shelf: dict[str, Part] = {}
    for place in _places():
        for part in _read_all(folder, place):
            there = shelf.get(part.name)
            if there or (folder == "models" and is_outside(part.name)):
                other = f"{there.path} ({there.place})" if there else "a package's nets"
                raise UsageError(
                    f"{part.path} ({part.place}) has the name of {other}: {folder}/{part.name} "
                    "can be one of them only: rename one, or leave its place out"
                )
            shelf[part.name] = part
    return dict(sorted(shelf.items()))


def _read_all(folder: str, place: Place) -> Iterable[Part]:
    if place.kind == places.BUILT_IN:
        return _read_own(folder, ROOT)
    return [_read(folder, path, place) for path in place.files(folder)]


def _read(folder: str, path: Path, place: Place) -> Part:
    return read(folder, path, place, CONTRACTS[folder], OPTIONAL.get(folder))


@cache
def _read_own(folder: str, root: Path) -> tuple[Part, ...]:
    """Read advkit's own parts, once in a process: they do not change with other people's."""
    own = replace(OWN, root=root)
    return tuple(_read(folder, path, own) for path in own.files(folder))


@cache
def _places() -> tuple[Place, ...]:
    """Return where parts lie, each place once: advkit's own first."""
    global _foreign_read
    known = [OWN, *places.installed(), *places.from_environment(CONTRACTS), *_named]
    first: dict[tuple[Path, str], Place] = {}
    for place in known:  # a package's folder may be named too
        first.setdefault((place.root.resolve(), place.function), place)
    _foreign_read |= len(first) > 1
    return tuple(first.values())


def forget(*, own: bool = True) -> None:
    """Read files anew when they are next asked for; advkit's own only if `own`."""
    global _generation
    for cached in (_places, parts, shared_options, *([_read_own] if own else [])):
        cached.cache_clear()
    importlib.invalidate_caches()
    for name in [name for name in sys.modules if name.startswith(places.PREFIX)]:
        del sys.modules[name]
    _generation += 1


def _refresh() -> None:
    """Take in what was named, and what changed in other people's files; read all of them.

    So names that are there twice are told before any work.
    """
    global _foreign_read
    _places.cache_clear()
    if _foreign_read or len(_places()) > 1:
        _foreign_read = False
        forget(own=False)
        # Only then: advkit's own alone are read shelf by shelf, as they are asked for
        for folder in CONTRACTS:
            parts(folder)


def generation() -> int:
    """Return a number that changes whenever parts may have changed."""
    return _generation


def use(*named: str | Path) -> None:
    """Use the parts of more folders, or model files FILE.py[:function], in this process.

    A folder has the package's own shape: `DIR/labels/halved.py`. What `ADVKIT_PARTS` names and
    installed packages offer is there without this. Files are read anew at each call.

    Raises:
        UsageError: no such place, or a part of it has a name that is there already.
    """
    before = [*_named]
    try:
        _named.extend(places.named(text, CONTRACTS, "parts") for text in named)
        _refresh()
    except UsageError:
        _named[:] = before
        forget(own=False)
        raise


@contextmanager
def using(*named: str) -> Iterator[None]:
    """Use the parts of more places, and of the environment as it is now, for a while; see `use`."""
    before = [*_named]
    try:
        _named.extend(places.named(text, CONTRACTS) for text in named)
        _refresh()
        yield
    finally:
        if _named != before:
            _named[:] = before
            forget(own=False)


def arch_named(arch: str) -> str:
    """Return an architecture's name; the parts of FILE.py[:function] are there from then on.

    >>> arch_named("wrn-34-10")
    'wrn-34-10'

    Raises:
        UsageError: no such file, or its name is that of another architecture.
    """
    if places.arch_file(arch) is None:
        return arch
    place = places.named(arch, CONTRACTS, "--arch")
    if place not in _places():
        use(arch)
    return name_of(place, place.root)


def foreign(names: Iterable[str]) -> frozenset[str]:
    """Return those of the names `shelf/part` that are not advkit's own parts."""
    pairs = [name.partition("/") for name in names]
    return frozenset(
        f"{shelf}/{name}"
        for shelf, _, name in pairs
        if shelf in CONTRACTS and name in parts(shelf) and parts(shelf)[name].foreign
    )


def clash(option: str, owner: str, shelves: Iterable[str] = CONTRACTS) -> UsageError:
    """Return the error about a part's option whose name is taken.

    Args:
        option: its name.
        owner: who else has it.
        shelves: where the part may be.
    """
    every = [part for shelf in shelves for part in parts(shelf).values() if part.foreign]
    guilty = next((part for part in every if option in part.lines), None)
    where = f"{guilty.path} is not a proper part: line {guilty.lines[option]}: " if guilty else ""
    flag = Option(option, "str", None, "").flag
    return UsageError(f"{where}{flag} is already an option of {owner}: rename it")


def part(folder: str, name: str) -> Part:
    """Look one part up.

    Raises:
        UsageError: no such part; the message names the nearest ones. Or its file does not keep
            the folder's contract; the message names file and lines.
    """
    shelf = parts(folder)
    if folder == "models" and is_outside(name):
        return Part(folder, name, f"A net of the package {name.partition(':')[0]}.", ())
    if name not in shelf:
        raise unknown(NOUNS[folder], name, shelf)
    if shelf[name].problems:
        raise UsageError(shelf[name].breach)
    return shelf[name]


def is_outside(arch: str) -> bool:
    """Whether an architecture is a package's own: `timm:NAME`.

    >>> is_outside("timm:resnet18"), is_outside("resnet18"), is_outside("tim:resnet18")
    (True, False, False)
    """
    package, colon, _ = arch.partition(":")
    return bool(colon) and package in OUTSIDE


def blaming(error: UsageError) -> UsageError:
    """Add to the error about an unknown option the parts whose options could not be read."""
    broken = [part for folder in CONTRACTS for part in parts(folder).values() if part.problems]
    return UsageError("; ".join([str(error), *(part.breach for part in broken)]))


@cache
def shared_options(folder: str) -> tuple[Option, ...]:
    """Options of all parts of a folder, one each, saying whose they are.

    Where parts disagree on a default, the option has none and its help lists them.
    """
    owners: dict[str, list[tuple[str, Option]]] = {}
    for owner in parts(folder).values():
        for option in owner.options:
            owners.setdefault(option.name, []).append((owner.name, option))
    panel = f"{NOUNS[folder].capitalize()} options"
    options = []
    for shared in owners.values():
        option = shared[0][1]
        if any(other.kind != option.kind for _, other in shared):
            kinds = " and ".join(f"{name} ({other.kind})" for name, other in shared)
            raise clash(option.name, f"another kind: {kinds}", [folder])
        # With several defaults none may be shown as the option's: each part keeps its own.
        agreed = all(other.default == option.default for _, other in shared)
        names = [
            name if agreed or other.default is None else f"{name}: {other.default}"
            for name, other in shared
        ]
        text = f"{option.help} ({', '.join(names)})"
        default = option.default if agreed else None
        words = [other.choices for _, other in shared]
        # Words of all of them; which of them a part knows is looked at when it is chosen.
        choices = tuple(dict.fromkeys(word for own in words for word in own)) if all(words) else ()
        options.append(replace(option, default=default, help=text, panel=panel, choices=choices))
    return tuple(options)


def load(folder: str, name: str) -> ModuleType:
    """Import one part.

    Raises:
        UsageError: no such part, or its file does not keep the folder's contract.
    """
    chosen = part(folder, name)
    if not chosen.foreign:
        return importlib.import_module(chosen.module)
    return imported(chosen)


def split_path(text: str) -> tuple[str, str | None]:
    """Split `NAME:PATH` of a data set.

    >>> split_path("folder:photos"), split_path("digits")
    (('folder', 'photos'), ('digits', None))
    """
    name, colon, path = text.partition(":")
    return name, path if colon else None


def split_numbers(arch: str) -> tuple[str, dict[str, int]]:
    """Split an architecture's name into its file and the options in its trailing numbers.

    >>> split_numbers("wrn-34-10")
    ('wrn', {'depth': 34, 'widen': 10})
    >>> split_numbers("resnet18")
    ('resnet18', {})

    Raises:
        UsageError: no such architecture, or too many numbers.
    """
    if is_outside(arch):
        return arch, {}
    words = arch.split("-")
    numbers: list[int] = []
    # An architecture may itself end in a number, and ten digits are nobody's depth.
    while (
        len(words) > 1
        and words[-1].isdecimal()
        and len(words[-1]) < 10
        and "-".join(words) not in parts("models")
    ):
        numbers.insert(0, int(words.pop()))
    if "-".join(words) not in parts("models"):
        raise unknown(
            NOUNS["models"], arch, parts("models"), _meant(arch, "-".join(words), numbers)
        )
    family = part("models", "-".join(words))
    names = [option.name for option in family.options if option.kind == "int"]
    if len(numbers) > len(names):
        raise UsageError(f"{arch}: {family.name} takes at most {len(names)} numbers")
    return family.name, dict(zip(names, numbers, strict=False))


def _meant(arch: str, family: str, numbers: list[int]) -> list[str]:
    """Return what is near a mistyped architecture; families of nets with its own numbers."""
    known = parts("models")
    tail = "".join(f"-{value}" for value in numbers)
    numbered = [
        f"{name}{tail}"
        for name in near(family, known)
        if sum(option.kind == "int" for option in known[name].options) >= len(numbers)
    ]
    return near(arch, [*known, *numbered])
