"""Saved analyses hold what was found, in all three formats."""

import csv
import json
from pathlib import Path

import h5py
import pytest

from advkit.artifacts import analysis as _save
from advkit.artifacts.result import Result
from advkit.errors import StorageError, UsageError

DESCRIPTION = {"schema": 1, "kind": "analysis", "analysis": "it"}
RESULT = Result(
    {"n": 3, "ece": 0.125, "name": "τ", "none": None},
    ("series", "low", "count", "eps"),
    (("clean", 0.1, 1, None), ("adversarial, wrong", 1e-300, 2, "8/255"), ('"q"\n', -0.0, 3, "x")),
)


@pytest.fixture(params=[".json", ".csv", ".h5"])
def path(request, tmp_path):
    return tmp_path / f"it{request.param}"


@pytest.mark.parametrize("suffix", [".json", ".JSON"])
def test_json(tmp_path, suffix):
    _save.write(tmp_path / f"it{suffix}", RESULT, DESCRIPTION)
    found = json.loads((tmp_path / f"it{suffix}").read_text(encoding="utf-8"))
    assert found["numbers"] == RESULT.numbers
    assert found["columns"] == list(RESULT.columns)
    assert found["rows"] == [list(row) for row in RESULT.rows]
    assert found["advkit"] == {**DESCRIPTION, "digest": _save.digest(RESULT, DESCRIPTION)}


@pytest.mark.parametrize("suffix", [".csv", ".CSV"])
def test_csv(tmp_path, suffix):
    _save.write(tmp_path / f"it{suffix}", RESULT, DESCRIPTION)
    with (tmp_path / f"it{suffix}").open(newline="", encoding="utf-8") as file:
        head, *rows = csv.reader(file)
    assert head == list(RESULT.columns)
    found = [(a, float(b), int(c), d or None) for a, b, c, d in rows]
    assert found == list(RESULT.rows)


def test_hdf5(tmp_path):
    _save.write(tmp_path / "it.h5", RESULT, DESCRIPTION)
    with h5py.File(tmp_path / "it.h5") as file:
        assert set(file) == set(RESULT.columns)
        assert file["series"].asstr()[()].tolist() == [row[0] for row in RESULT.rows]
        assert file["low"][()].tolist() == [row[1] for row in RESULT.rows]
        assert file["count"][()].tolist() == [1, 2, 3]
        assert file["count"].dtype.kind == "i"
        assert file["eps"].asstr()[()].tolist() == ["", "8/255", "x"]
        assert json.loads(file.attrs["numbers"]) == RESULT.numbers
        description = json.loads(file.attrs["advkit"])
    assert description == {**DESCRIPTION, "digest": _save.digest(RESULT, DESCRIPTION)}


def test_equal_work_equal_bytes(path):
    _save.write(path, RESULT, DESCRIPTION)
    first = path.read_bytes()
    path.unlink()
    _save.write(path, RESULT, DESCRIPTION)
    assert path.read_bytes() == first


def test_nothing_else_is_left(path):
    path.write_text("old")
    _save.write(path, RESULT, DESCRIPTION)
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_empty_table(path):
    _save.write(path, Result({"n": 0}), DESCRIPTION)
    assert path.stat().st_size > 0


@pytest.mark.parametrize(
    ("result", "description"),
    [
        (Result({**RESULT.numbers, "n": 4}, RESULT.columns, RESULT.rows), DESCRIPTION),
        (Result(RESULT.numbers, RESULT.columns, RESULT.rows[:2]), DESCRIPTION),
        (Result(RESULT.numbers, ("a", *RESULT.columns[1:]), RESULT.rows), DESCRIPTION),
        (RESULT, {**DESCRIPTION, "analysis": "other"}),
    ],
)
def test_digest_sees_every_change(result, description):
    assert _save.digest(result, description) != _save.digest(RESULT, DESCRIPTION)


def test_digest_does_not_see_pictures():
    drawn = Result(RESULT.numbers, RESULT.columns, RESULT.rows, panels=(print,), text="x")
    assert _save.digest(drawn, DESCRIPTION) == _save.digest(RESULT, DESCRIPTION)


@pytest.mark.parametrize("name", ["it.txt", "it", "it.json.gz", ".csv"])
def test_other_formats(name):
    with pytest.raises(UsageError, match=r"\.json, \.csv, \.h5"):
        _save.check(Path(name))


@pytest.mark.parametrize("name", ["it.json", "it.CSV", "a/it.h5"])
def test_known_formats(name, tmp_path):
    _save.check(tmp_path / name)


def test_no_such_folder(tmp_path):
    with pytest.raises(StorageError):
        _save.write(tmp_path / "gone" / "it.json", RESULT, DESCRIPTION)
