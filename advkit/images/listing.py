"""What lies in a folder of images: what is taken, and what is passed over."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from advkit.errors import InputError, few
from advkit.images.decode import SUFFIXES, is_image
from advkit.images.image_set import require_text

LEFTOVERS = ("__macosx", "thumbs.db", "desktop.ini")
"""Names, in small letters, that operating systems leave in folders, beside those with a dot."""


def spelt(name: str) -> str:
    """Return the name of a file as UTF-8, whatever encoding the locale has; other bytes stay.

    Order and names of classes come from this, so that they are the same everywhere.
    """
    return os.fsencode(name).decode("utf-8", "surrogateescape")


def is_leftover(name: str) -> bool:
    """Whether a name is one that an operating system or an editor leaves behind."""
    return name.startswith(".") or name.lower() in LEFTOVERS


class PassedOver:
    """What was found and not taken, by kind, in the order in which it was met."""

    def __init__(self, top: Path) -> None:
        """Begin with nothing; names are told below `top`."""
        self.top = top
        self.leftovers: list[str] = []
        self.files: list[str] = []
        self.folders: list[str] = []

    def add(self, path: Path, kind: list[str]) -> None:
        """Count one thing among those of its kind."""
        kind.append(path.relative_to(self.top).as_posix())

    def kept(self, folder: Path) -> list[Path]:
        """Return what lies in a folder, sorted, without leftovers, which are counted.

        Raises:
            OSError: it cannot be listed.
        """
        paths = sorted(folder.iterdir(), key=lambda path: spelt(path.name))
        for path in paths:
            if is_leftover(path.name):
                self.add(path, self.leftovers)
        return [path for path in paths if not is_leftover(path.name)]

    @property
    def remark(self) -> str:
        """What was passed over in one line; empty if nothing was."""
        kinds = [
            (self.leftovers, "leftover of the system", "leftovers of the system"),
            (self.files, "other file", "other files"),
            (self.folders, "folder", "folders"),
        ]
        parts = [
            f"{len(names)} {one if len(names) == 1 else many} ({few(names)})"
            for names, one, many in kinds
            if names
        ]
        return f"{self.top}: passed over: {', '.join(parts)}" if parts else ""


def class_folders(
    top: Path,
    wanted: str,
    passed: PassedOver,
    *,
    without: Sequence[str] = (),
    least: int = 2,
) -> dict[str, Path]:
    """Return the folders in `top` by name, one for each class, sorted.

    Args:
        top: the folder of a split.
        wanted: what should lie there, for the error message.
        passed: counts what is no class.
        without: folders that are something else.
        least: classes that must be there.

    Raises:
        InputError: no such folder, or too few classes in it.
    """
    if not top.is_dir():
        raise InputError(f"{top}: no such folder; {wanted}")
    named: dict[str, Path] = {}
    for path in passed.kept(top):
        if path.name in without:
            continue
        if path.is_dir():
            named[spelt(path.name)] = path
        else:
            passed.add(path, passed.files)
    if len(named) < least:
        folders = f"only {next(iter(named))!r}" if named else "none"
        raise InputError(f"{top}: needs a folder for each of two classes or more; found {folders}")
    require_text(top, list(named))
    return named


def files(folder: Path, passed: PassedOver) -> list[Path]:
    """Return the image files of a folder, sorted by name.

    They are known by their suffix or, under any other name, by their content. Folders in it are
    not looked into.

    Raises:
        InputError: there is none.
    """
    taken = []
    inside = PassedOver(folder)
    for path in inside.kept(folder):
        if path.is_dir():
            inside.add(path, inside.folders)
        elif path.suffix.lower() in SUFFIXES or is_image(path):
            taken.append(path)
        else:
            inside.add(path, inside.files)
    if not taken:
        reason = inside.remark.partition(": ")[2]
        raise InputError(f"{folder}: holds no image" + (f"; {reason}" if reason else ""))
    for mine, theirs in (
        (inside.leftovers, passed.leftovers),
        (inside.files, passed.files),
        (inside.folders, passed.folders),
    ):
        for name in mine:
            passed.add(folder / name, theirs)
    return taken
