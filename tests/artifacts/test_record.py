"""Records: one JSON line each, read back as they were."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advkit.artifacts import record
from advkit.errors import InputError

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
FIGURE = st.one_of(st.none(), st.booleans(), st.integers(), TEXT, NUMBER)
PATH = TEXT.filter(lambda text: text.strip() and "\0" not in text)


@given(PATH, st.dictionaries(TEXT.filter(lambda k: k not in {"kind", "path", "digest"}), FIGURE))
def test_a_record_is_one_line_and_reads_back(path, figures):
    made = {**record.make("logits", "x", "sha256:0"), **figures, "path": path}
    text = record.line(made)
    assert len(text.split("\n")) == 1
    assert record.parse(text + "\n") == made
    assert json.loads(text) == made


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_figures_that_are_not_finite_become_null(value):
    made = record.make("logits", None, "d", a=value, b=(1.0, value), c={"x": [value]}, d=0.5)
    assert (made["a"], made["b"], made["c"], made["d"]) == (None, [1.0, None], {"x": [None]}, 0.5)
    assert "null" in record.line(made)


def test_a_record_begins_with_kind_path_and_digest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = record.make("checkpoint", tmp_path / "run" / "é b.safetensors", "sha256:1", epoch=3)
    assert list(made) == ["kind", "path", "digest", "epoch"]
    assert made["path"] == "run/é b.safetensors"


def test_paths_are_relative_below_the_working_directory_only(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert record.relative("a/../b") == "b"
    assert record.relative(tmp_path / "here") == "."
    assert record.relative(tmp_path / "here-too" / "x") == str(tmp_path / "here-too" / "x")
    assert record.relative("../x") == str(tmp_path / "x")


@pytest.mark.parametrize("text", ["a.h5", "with space.h5", "é/ü.h5", "[x].h5", "/abs/path"])
def test_a_bare_line_is_a_path(text):
    assert record.parse(f" {text}\r\n") == {"path": text}


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("{", "stdin holds a broken record: '{'"),
        ('{"path": "a"', "broken record"),
        ('{"kind": "logits"}', "a logits record on stdin has no path"),
        ('{"kind": "analysis", "path": null}', "^an analysis record on stdin has no path"),
        ('{"path": 3}', r"stdin holds no record of advkit's, but '\{"),
        ('{"name": "loss", "value": 3}', "stdin holds no record of advkit's, but"),
        ('{"a":' * 100_000, "broken record"),
    ],
    ids=["brace", "cut", "no path", "null path", "number", "another tool's", "deep"],
)
def test_broken_records_are_input_errors(text, what):
    with pytest.raises(InputError, match=what):
        record.parse(text)


def test_the_kind_is_told_where_there_is_no_path_either():
    text = '{"kind": "analysis", "path": null}'
    with pytest.raises(InputError, match=r"^got an analysis record, wanted: checkpoint"):
        record.parse(text, ("checkpoint",))
    with pytest.raises(InputError, match=r"^an analysis record on stdin has no path"):
        record.parse(text, ("analysis",))


def test_the_kind_is_checked():
    made = {"kind": "logits", "path": "a.h5"}
    assert record.wanted(made, ("labels", "logits")) == "a.h5"
    assert record.wanted({"path": "bare"}, ("labels",)) == "bare"
    with pytest.raises(InputError, match="got a logits record, wanted: checkpoint or labels"):
        record.wanted(made, ("checkpoint", "labels"))


@given(st.text())
def test_foreign_text_is_shown_in_one_short_printable_line(text):
    shown = record.shown(text)
    assert shown.isascii() or "…" in shown
    assert "\n" not in shown
    assert "\x1b" not in shown
    assert len(shown) <= 130
