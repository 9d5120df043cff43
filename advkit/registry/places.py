"""Where parts lie: in advkit itself, in folders and files that were named, in installed packages.

Nothing is imported to find them. Folders and files are named by `--parts`, by `--arch FILE.py`, by
`use`, or in `ADVKIT_PARTS`; packages offer theirs under the entry point group `advkit.parts`.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from advkit.errors import InputError, UsageError, brief
from advkit.runtime import reading

VARIABLE = "ADVKIT_PARTS"
GROUP = "advkit.parts"
PREFIX = "_advkit_parts_"
"""What modules from folders are imported under, with a number for each folder behind it."""
BUILT_IN, FOLDER, PACKAGE, FILE = "built in", "folder", "package", "file"


@dataclass(frozen=True)
class Place:
    """A folder of shelves, or one model file.

    `kind` is one of the four above. `root` holds the shelves; of a file it is the file. `module`
    is the dotted name that stands for `root` in imports. `name` is what people know it by.
    `function` of a file is what builds the net. `top` holds all that may belong to the source.
    """

    kind: str
    root: Path
    module: str
    name: str
    function: str = ""
    top: Path = Path()

    def files(self, shelf: str) -> list[Path]:
        """Return the files of a shelf's parts, sorted."""
        if self.kind == FILE:
            return [self.root] if shelf == "models" else []
        paths = sorted((self.root / shelf).glob("*.py"))
        return [path for path in paths if not path.stem.startswith("_")]

    def spelt(self, path: Path) -> str:
        """Return a file's place among the parts: `labels/halved.py`, whatever the root is called.

        So that the same file means the same as a file, in a folder and in a package.
        """
        if self.kind == FILE:
            return "models/" + Path(os.path.relpath(path, self.root.parent)).as_posix()
        return Path(os.path.relpath(path, self.root)).as_posix()

    def __str__(self) -> str:
        return self.kind if self.kind == BUILT_IN else f"{self.kind} {self.name}"


def named(text: str | Path, shelves: Iterable[str], origin: str = "--parts") -> Place:
    """Return the place that a folder's or file's name means.

    Args:
        text: a folder of shelves, or FILE.py[:function].
        shelves: names of the folders that hold parts.
        origin: who named it, for messages.

    Raises:
        UsageError: there is none, or there are no parts in it.
    """
    if arch_file(str(text)):
        return _file(str(text), origin)
    root = Path(os.path.abspath(text))
    if not root.is_dir():
        raise UsageError(f"{origin} {text}: no such folder")
    if not any((root / shelf).is_dir() for shelf in shelves):
        folders = ", ".join(shelves)
        raise UsageError(
            f"{origin} {text}: parts lie in folders of it, none of which is there: {folders}"
        )
    return Place(FOLDER, root, _module(root), str(text), top=root)


def arch_file(arch: str) -> tuple[str, str] | None:
    """Split FILE.py[:function] of an architecture; None for the name of one.

    >>> arch_file("nets/mine.py:make"), arch_file("mine.py"), arch_file("resnet18")
    (('nets/mine.py', 'make'), ('mine.py', 'build'), None)
    """
    match = re.fullmatch(r"(.+\.py)(?::([A-Za-z_]\w*))?", arch)
    return (match[1], match[2] or "build") if match else None


def _file(text: str, origin: str) -> Place:
    file, function = arch_file(text) or ("", "")
    path = Path(os.path.abspath(file))
    if not path.is_file():
        raise UsageError(f"{origin} {text}: no such file")
    if not re.fullmatch(r"[A-Za-z][\w-]*", path.stem):
        raise UsageError(f"{origin} {text}: a part's name is letters, digits, - and _: rename it")
    return Place(FILE, path, _module(path), file, function, path.parent)


def _module(root: Path) -> str:
    return PREFIX + sha256(os.fsencode(root)).hexdigest()[:16]


def from_environment(shelves: Iterable[str]) -> Iterator[Place]:
    """Yield the places of `ADVKIT_PARTS`, which is written like PATH.

    Raises:
        UsageError: one is no place of parts.
    """
    for text in os.environ.get(VARIABLE, "").split(os.pathsep):
        if text:
            yield named(text, shelves, VARIABLE)


def installed() -> Iterator[Place]:
    """Yield what installed packages offer, without importing them.

    Raises:
        UsageError: a package names a place that is not there.
    """
    if not any(_offers(Path(folder or ".")) for folder in sys.path):
        return
    from importlib import metadata  # tens of milliseconds, which most calls need not spend

    # Of a package that lies on the path twice the first one counts, as in imports.
    offers = {point.name: point for point in reversed([*metadata.entry_points(group=GROUP)])}
    for point in sorted(offers.values(), key=lambda one: one.name):
        owner = point.dist.name if point.dist else point.name
        where = f"the package {owner} offers parts in {point.value!r}"
        if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", point.value):
            raise UsageError(f"{where}, which is no module path")
        first, *rest = point.value.split(".")
        # The top alone: to find what is below it, find_spec would import it.
        spec = importlib.util.find_spec(first)
        tops = [Path(top) for top in (spec.submodule_search_locations or [])] if spec else []
        roots = [(top.joinpath(*rest), top) for top in tops if top.joinpath(*rest).is_dir()]
        if not roots:
            raise UsageError(f"{where}, where no folder lies: install it anew")
        root, top = roots[0]
        yield Place(PACKAGE, root, point.value, owner, top=top)


def _offers(folder: Path) -> bool:
    """Whether a package of this folder has entry points of the group."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.name.endswith(("-info", ".egg-info"))]
    except OSError:
        return False
    for name in names:
        try:
            if GROUP.encode() in reading.content(
                folder / name / "entry_points.txt", reading.SETTINGS
            ):
                return True
        except (OSError, InputError):  # what cannot be read offers nothing
            continue
    return False


def cause(error: BaseException, path: Path) -> str:
    """Return what stopped the import of a file, with its line where it is the file's."""
    line, trace = 0, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    if isinstance(error, SyntaxError) and error.filename:  # of a file that it imports
        return f"{error.filename}: line {error.lineno}: it is not Python: {error.msg}"
    where = f"line {line}: " if line else ""
    if isinstance(error, ModuleNotFoundError):
        return (
            f"{where}there is no module {error.name}; files beside it are imported as "
            "`from .name import ...`"
        )
    return f"{where}{type(error).__name__}: {brief(error)}"
