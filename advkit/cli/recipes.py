"""`advkit recipes`: the scripts that come with advkit, and copies of them that run anywhere."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from advkit import registry
from advkit.artifacts import files
from advkit.cli.common import options
from advkit.cli.common.options import Call, Command
from advkit.config.machine import Output
from advkit.errors import MismatchError, StorageError, UsageError, storage, unknown

SOURCED = re.compile(r'^\s*(?:source |\w+=).*/(_\w+\.(?:sh|py))"$', re.MULTILINE)
"""How a recipe names a helper that lies beside it, to source it or to run it."""


def folder() -> Path:
    """Return where the recipes lie: inside the package, or beside it in a checkout.

    Raises:
        UsageError: they are in neither place.
    """
    inside = registry.ROOT / "recipes"
    beside = registry.ROOT.parent / "recipes"
    for place in (inside, beside):
        if (place / "_table.sh").is_file():
            return place
    raise UsageError(f"there are no recipes in {inside}: install advkit again")


def recipes() -> dict[str, Path]:
    """Return every recipe by name: its place among the recipes, without the suffix."""
    root = folder()
    scripts = sorted([*root.glob("[!_]*.sh"), *root.glob("slurm/*.sbatch")])
    return {path.relative_to(root).with_suffix("").as_posix(): path for path in scripts}


def about(recipe: Path) -> str:
    """Return the first sentence of a recipe's own head."""
    lines = recipe.read_text(encoding="utf-8").splitlines()[1:]
    words = []
    for line in lines:
        if not line.startswith("# "):
            break
        words += line[1:].split()
    return re.split(r"(?<=\.) ", " ".join(words))[0]


def needed(recipe: Path) -> list[Path]:
    """Return a recipe and the helpers that it, or one of them, sources."""
    scripts = [recipe]
    for path in scripts:  # grows while it is gone through: helpers source helpers
        text = path.read_text(encoding="utf-8")
        helpers = [path.with_name(name) for name in SOURCED.findall(text)]
        scripts += [helper for helper in helpers if helper not in scripts]
    return scripts


def listed(call: Call) -> Iterator[str]:
    """Yield a line for each recipe."""
    for name, path in recipes().items():
        yield f"{name}\t{about(path)}\n"


def copied(call: Call) -> Iterator[str]:
    """Copy one recipe with its helpers and yield where it is.

    Raises:
        UsageError: no recipe was named, there is none of that name, or too many words were given.
        MismatchError: another file is in a place, and --overwrite was not given.
        StorageError: the folder cannot be written, or a folder is in the place of a file.
    """
    known = recipes()
    name, into = _words(call, known)
    if name not in known:
        raise unknown("recipe", name, known)
    root, overwrite = folder(), call.build(Output).overwrite
    places = {path: into / path.relative_to(root) for path in needed(known[name])}
    # All are compared before one is written, so that a refusal leaves nothing half done.
    missing = [path for path, place in places.items() if not _there(path, place, overwrite)]
    for path in missing:
        _write(path, places[path])
    if not missing:
        call.reporter("recipes copy").note(f"{places[known[name]]}: already done")
    yield f"{places[known[name]]}\n"


def _write(path: Path, place: Path) -> None:
    """Put a copy in place; a recipe may be run by whoever may read it."""
    files.folder(place.parent)
    with files.replacing(place) as temporary:
        temporary.write_bytes(path.read_bytes())
        if _runs(path):
            mode = temporary.stat().st_mode
            temporary.chmod(mode | (mode & 0o444) >> 2)  # r-- to r-x, for each who may read


def _words(call: Call, known: dict[str, Path]) -> tuple[str, Path]:
    """Return the recipe's name and the folder."""
    words = call.files
    if not words:
        raise UsageError(f"name a recipe: {', '.join(known)}")
    if len(words) > 2:
        raise UsageError(
            f"one recipe and one folder, not {len(words)} words: call it once for each"
        )
    return str(words[0]), Path(words[1] if len(words) > 1 else ".")


def _there(path: Path, place: Path, overwrite: bool) -> bool:
    """Whether a file is in its place already, and can be run if it is to be.

    Raises:
        MismatchError: another file is there, and --overwrite was not given.
        StorageError: a folder or a link is there, or what is there cannot be read.
    """
    if not os.path.lexists(place):
        return False
    if place.is_dir():
        raise StorageError(f"cannot write {place}: a folder is in its place")
    try:
        same = place.is_file() and place.read_bytes() == path.read_bytes()
    except OSError as error:
        raise storage(error, place) from error
    if not same and not overwrite:
        raise MismatchError(f"{place} is there and differs: choose another folder, or --overwrite")
    if not same:
        files.require_no_link(place)
    return same and (not _runs(path) or os.access(place, os.X_OK))


def _runs(path: Path) -> bool:
    """Whether a file is run; helpers (`_*.sh`) are only sourced."""
    return not path.name.startswith("_")


COMMANDS = (
    Command("list", "List the recipes.", (), listed, example="advkit recipes list"),
    Command(
        "copy",
        "Copy a recipe, with the helpers that it needs, into a folder (the current one).",
        (options.OVERWRITE,),
        copied,
        argument="NAME [DIR]",
        example="advkit recipes copy adr-table1 tables",
    ),
)


def commands() -> tuple[Command, ...]:
    """Return the commands of the group."""
    return COMMANDS
