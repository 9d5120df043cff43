"""Writing an analysis: JSON, CSV or HDF5, atomically."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from advkit.analyses import Result
from advkit.artifacts import files, provenance
from advkit.errors import UsageError

SUFFIXES = (".json", ".csv", ".h5")


def check(path: Path) -> None:
    """Refuse a table format early.

    Raises:
        UsageError: not JSON, CSV or HDF5.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"-o {path}: the name must end in {', '.join(SUFFIXES)}")


def digest(result: Result, description: Mapping[str, Any]) -> str:
    """Return the digest of numbers, table and description."""
    content = provenance.canonical(_plain(result)).encode()
    array = provenance.Array("analysis", "json", (len(content),), content)
    return provenance.digest(description, [array])


def write(path: Path, result: Result, description: Mapping[str, Any]) -> None:
    """Write the numbers and the whole table.

    JSON holds both and the description; HDF5 a dataset a column, numbers and description as
    attributes; CSV the table alone.

    Raises:
        StorageError: the file cannot be written.
    """
    full = {**description, "digest": digest(result, description)}
    with files.replacing(path) as temporary:
        if path.suffix == ".json":
            text = json.dumps({"advkit": full, **_plain(result)}, indent=1, ensure_ascii=False)
            temporary.write_text(text + "\n", encoding="utf-8")
        elif path.suffix == ".csv":
            with temporary.open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(result.columns)
                writer.writerows(result.rows)
        else:
            _write_hdf5(temporary, result, full)


def _write_hdf5(path: Path, result: Result, description: Mapping[str, Any]) -> None:
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        for place, name in enumerate(result.columns):
            values = [row[place] for row in result.rows]
            if all(isinstance(value, int | float) for value in values):
                file[name] = np.asarray(values)
            else:
                texts = ["" if value is None else str(value) for value in values]
                file[name] = np.asarray(texts, dtype=h5py.string_dtype())
        file.attrs["numbers"] = provenance.canonical(_plain(result)["numbers"])
        file.attrs["advkit"] = provenance.canonical(description)


def _plain(result: Result) -> dict[str, Any]:
    rows = [list(row) for row in result.rows]
    return {"numbers": result.numbers, "columns": list(result.columns), "rows": rows}
