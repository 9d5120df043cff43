"""Files of an analysis: JSON, CSV or HDF5, atomic, and checked when read back; and documents.

Markdown, LaTeX and HTML are for people: they are written as atomically, and never read back.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import h5py
import numpy as np

from advkit.artifacts import descriptions, document, files, latex, page, provenance
from advkit.artifacts.descriptions import Description
from advkit.artifacts.hdf5 import MAGIC, get_text, set_text, writing
from advkit.artifacts.result import Result
from advkit.errors import InputError, MismatchError, UsageError
from advkit.runtime import reading

SUFFIXES = (".json", ".csv", ".h5")
DOCUMENTS = (".md", ".tex", ".html")
"""Formats for people, of analyses that say so."""


def check(path: Path, formats: Sequence[str] = (), *, kept: bool = False) -> None:
    """Refuse a format or a folder early.

    Args:
        path: where the analysis is to go.
        formats: what this analysis writes beside JSON, CSV and HDF5.
        kept: what lies there stays: it is only compared.

    Raises:
        UsageError: not a format that it writes.
        StorageError: the folder cannot be written.
    """
    known = (*SUFFIXES, *formats)
    if path.suffix.lower() not in known:
        raise UsageError(f"-o {path}: the name must end in {', '.join(known)}")
    if not kept:
        files.folder(path.parent)


def digest(table: Result, description: Description) -> str:
    """Return the digest of numbers, table and description."""
    return _digest(_plain(table), description)


def write(path: Path, table: Result, description: Description) -> None:
    """Write the numbers and the whole table.

    JSON holds both and the description; HDF5 a data set a column, with numbers and description
    as attributes; CSV the table alone; Markdown, LaTeX and HTML the document.

    Raises:
        StorageError: the file cannot be written.
    """
    full = {**description, "digest": digest(table, description)}
    with files.replacing(path) as temporary:
        if path.suffix.lower() == ".h5":
            _write_hdf5(temporary, path, table, full)
        else:
            text = _plain_text(path, table, full)
            if text is None:
                text = json_text(table, full)
            temporary.write_text(text, encoding="utf-8")


def require_same(path: Path, table: Result, description: Description) -> None:
    """Check that the file in place is what this work would write.

    Raises:
        MismatchError: it is something else.
    """
    if not lies_there(path, table, description):
        raise MismatchError(f"{path} holds something else: choose another -o, or --overwrite")


def lies_there(path: Path, table: Result, description: Description) -> bool:
    """Whether the file in place is what this work would write."""
    text = _plain_text(path, table, {**description, "digest": digest(table, description)})
    try:
        if text is not None:
            wanted = text.encode("utf-8")
            return reading.content(path, len(wanted)) == wanted
        return bool(read_info(path)["digest"] == digest(table, description))
    except (OSError, InputError):  # what cannot be read is not what this work would write
        return False


def read_info(path: Path) -> descriptions.Analysis:
    """Return the description of a JSON or HDF5 analysis, its digest checked.

    Raises:
        InputError: not an analysis, or corrupt.
    """
    try:
        content, text = _hdf5_content(path) if _is_hdf5(path) else _json_content(path)
        info = provenance.parse(text, path, "analysis")
        actual = _digest(content, info)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError):  # among them RecursionError
        raise InputError(f"{path}: not made by advkit, or corrupt") from None
    if actual != info.get("digest"):
        raise InputError(f"{path}: corrupt: the content does not match its digest; make it anew")
    return cast(descriptions.Analysis, info)  # checked as one when it was parsed


def _plain_text(path: Path, table: Result, full: Description) -> str | None:
    """Return the text of a format that carries no description to check; None for the others."""
    suffix = path.suffix.lower()
    if suffix == ".csv":
        return csv_text(table)
    if suffix not in DOCUMENTS:
        return None
    if table.document is None:
        raise UsageError(f"-o {path}: this analysis writes no {suffix}")
    if suffix == ".html":
        return page.html(table.document, full)
    return (latex.latex if suffix == ".tex" else document.markdown)(table.document)


def csv_text(table: Result) -> str:
    """Return the table as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows(table.rows)
    return text.getvalue()


def json_text(table: Result, description: Description) -> str:
    """Return description, numbers and table as JSON."""
    content = {"advkit": description, **_plain(table)}
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _digest(content: Mapping[str, object], description: Description) -> str:
    # The same for JSON and HDF5: a digest of what they say, not of how a format spells it.
    raw = provenance.canonical(content).encode()
    return provenance.digest(description, [provenance.Array("analysis", "json", (len(raw),), raw)])


def _plain(table: Result) -> dict[str, object]:
    rows = [list(row) for row in table.rows]
    plain = {"numbers": dict(table.numbers), "columns": list(table.columns), "rows": rows}
    groups = {"groups": list(table.groups)} if table.groups else {}
    return {**plain, **groups, **table.more}


def _write_hdf5(temporary: Path, path: Path, table: Result, description: Description) -> None:
    with writing(temporary, path) as file:
        for place, name in enumerate(table.columns):
            values = [row[place] for row in table.rows]
            if all(isinstance(value, int | float | None) for value in values):
                # HDF5 has no null: a gap is NaN here, and null in `content`.
                file[name] = np.asarray([np.nan if value is None else value for value in values])
            else:
                texts = ["" if value is None else str(value) for value in values]
                file[name] = np.asarray(texts, dtype=h5py.string_dtype())
        set_text(file, "numbers", provenance.canonical(dict(table.numbers)))
        set_text(file, "content", provenance.canonical(_plain(table)))
        set_text(file, "advkit", provenance.canonical(description))


def _is_hdf5(path: Path) -> bool:
    with reading.opened(path) as file:
        return file.read(len(MAGIC)) == MAGIC


def _hdf5_content(path: Path) -> tuple[dict[str, object], str]:
    with h5py.File(path, "r") as file:
        return json.loads(get_text(file, "content") or ""), str(get_text(file, "advkit"))


def _json_content(path: Path) -> tuple[dict[str, object], str]:
    content = json.loads(reading.text(path))
    if not isinstance(content, dict):
        raise ValueError("no object")
    return content, json.dumps(content.pop("advkit"))
