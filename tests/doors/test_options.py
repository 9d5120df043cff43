"""What is typed for an import, and where it goes."""

from __future__ import annotations

from pathlib import Path

import pytest

from advkit.doors import options
from advkit.doors.importing import _place
from advkit.errors import UsageError


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("a.pt", "a.imported.safetensors"),
        ("a.b.pth.tar", "a.b.imported.safetensors"),
        ("a.tar", "a.imported.safetensors"),
        ("a.safetensors", "a.imported.safetensors"),
        ("a", "a.imported.safetensors"),
        ("x/a.pt", "x/a.imported.safetensors"),
    ],
)
def test_a_checkpoint_lies_beside_its_file(name, place):
    assert _place(Path(name)) == Path(place)


def test_a_checkpoint_lies_beside_its_folder(tmp_path, monkeypatch):
    (tmp_path / "hub.v1").mkdir()
    assert _place(tmp_path / "hub.v1") == tmp_path / "hub.v1.imported.safetensors"
    monkeypatch.chdir(tmp_path / "hub.v1")
    assert _place(Path()) == tmp_path / "hub.v1.imported.safetensors"


def test_numbers_a_channel_or_one_for_all():
    assert options.numbers("--mean", "0.5,0.25,0", 3) == [0.5, 0.25, 0.0]
    assert options.numbers("--std", "0.5", 3) == [0.5] * 3


@pytest.mark.parametrize("text", ["", "a", "0.5,0.5", "nan", "1e9", "inf,1,1"])
def test_what_are_no_numbers(text):
    with pytest.raises(UsageError, match="3 numbers apart by commas"):
        options.numbers("--mean", text, 3)
    with pytest.raises(UsageError, match="--std '0'"):
        options.numbers("--std", "0", 3)
