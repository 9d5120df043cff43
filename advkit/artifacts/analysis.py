"""Files of an analysis: JSON, CSV or HDF5, atomic, and checked when read back."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np

from advkit.artifacts import files, provenance
from advkit.artifacts.hdf5 import MAGIC, get_text, set_text, writing
from advkit.errors import InputError, MismatchError, UsageError

SUFFIXES = (".json", ".csv", ".h5")


class Table(Protocol):
    """What an analysis gives to be written."""

    @property
    def numbers(self) -> Mapping[str, Any]:
        """Figures by name."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns."""

    @property
    def rows(self) -> tuple[tuple[Any, ...], ...]:
        """The whole table."""

    @property
    def groups(self) -> tuple[dict[str, Any], ...]:
        """Rows taken together; none for most analyses."""


def check(path: Path) -> None:
    """Refuse a format or a folder early.

    Raises:
        UsageError: not JSON, CSV or HDF5.
        StorageError: the folder cannot be written.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"-o {path}: the name must end in {', '.join(SUFFIXES)}")
    files.folder(path.parent)


def digest(table: Table, description: Mapping[str, Any]) -> str:
    """Return the digest of numbers, table and description."""
    return _digest(_plain(table), description)


def write(path: Path, table: Table, description: Mapping[str, Any]) -> None:
    """Write the numbers and the whole table.

    JSON holds both and the description; HDF5 a data set a column, with numbers and description
    as attributes; CSV the table alone.

    Raises:
        StorageError: the file cannot be written.
    """
    full = {**description, "digest": digest(table, description)}
    with files.replacing(path) as temporary:
        if path.suffix.lower() == ".h5":
            _write_hdf5(temporary, path, table, full)
        else:
            text = csv_text(table) if path.suffix.lower() == ".csv" else json_text(table, full)
            temporary.write_text(text, encoding="utf-8")


def require_same(path: Path, table: Table, description: Mapping[str, Any]) -> None:
    """Check that the file in place is what this work would write.

    Raises:
        MismatchError: it is something else.
    """
    if path.suffix.lower() == ".csv":
        try:
            same = path.read_text(encoding="utf-8") == csv_text(table)
        except (OSError, UnicodeDecodeError):
            same = False
    else:
        try:
            same = read_info(path)["digest"] == digest(table, description)
        except InputError:
            same = False
    if not same:
        raise MismatchError(f"{path} holds something else: choose another -o, or --overwrite")


def read_info(path: Path) -> dict[str, Any]:
    """Return the description of a JSON or HDF5 analysis, its digest checked.

    Raises:
        InputError: not an analysis, or corrupt.
    """
    try:
        content, text = _hdf5_content(path) if _is_hdf5(path) else _json_content(path)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise InputError(f"{path}: not made by advkit, or corrupt") from None
    info = provenance.parse(text, path, "analysis")
    if _digest(content, info) != info.get("digest"):
        raise InputError(f"{path}: corrupt: the content does not match its digest; make it anew")
    return info


def csv_text(table: Table) -> str:
    """Return the table as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows(table.rows)
    return text.getvalue()


def json_text(table: Table, description: Mapping[str, Any]) -> str:
    """Return description, numbers and table as JSON."""
    content = {"advkit": description, **_plain(table)}
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _digest(content: Mapping[str, Any], description: Mapping[str, Any]) -> str:
    raw = provenance.canonical(content).encode()
    return provenance.digest(description, [provenance.Array("analysis", "json", (len(raw),), raw)])


def _plain(table: Table) -> dict[str, Any]:
    rows = [list(row) for row in table.rows]
    plain = {"numbers": dict(table.numbers), "columns": list(table.columns), "rows": rows}
    return {**plain, "groups": list(table.groups)} if table.groups else plain


def _write_hdf5(temporary: Path, path: Path, table: Table, description: Mapping[str, Any]) -> None:
    with writing(temporary, path) as file:
        for place, name in enumerate(table.columns):
            values = [row[place] for row in table.rows]
            if all(isinstance(value, int | float | None) for value in values):
                file[name] = np.asarray([np.nan if value is None else value for value in values])
            else:
                texts = ["" if value is None else str(value) for value in values]
                file[name] = np.asarray(texts, dtype=h5py.string_dtype())
        set_text(file, "numbers", provenance.canonical(dict(table.numbers)))
        set_text(file, "content", provenance.canonical(_plain(table)))
        set_text(file, "advkit", provenance.canonical(description))


def _is_hdf5(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def _hdf5_content(path: Path) -> tuple[dict[str, Any], str]:
    with h5py.File(path, "r") as file:
        return json.loads(get_text(file, "content") or ""), str(get_text(file, "advkit"))


def _json_content(path: Path) -> tuple[dict[str, Any], str]:
    content = json.loads(path.read_text(encoding="utf-8"))
    return content, json.dumps(content.pop("advkit"))
