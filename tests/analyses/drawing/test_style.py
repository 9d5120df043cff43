"""One look: series that no two readers confuse, sizes in inches, letters that travel along."""

import itertools

import pytest

from advkit.analyses.drawing import clouds, style
from advkit.errors import UsageError


def grey(colour):
    """Relative luminance (Rec. 709) of #RRGGBB."""
    levels = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    return sum(w * x for w, x in zip((0.2126, 0.7152, 0.0722), levels, strict=True))


def test_no_two_series_look_alike():
    looks = [style.look(place) for place in range(25)]
    assert len(set(looks)) == 25
    for first, second in itertools.combinations(looks[:4], 2):
        assert all(a != b for a, b in zip(first, second, strict=True)), "colour, marker and line"


def test_series_of_one_shade_differ_in_marker_and_line():
    """What prints in one grey is told apart by shape."""
    for first, second in itertools.combinations(map(style.look, range(5)), 2):
        if abs(grey(first.colour) - grey(second.colour)) < 0.15:
            assert first.marker != second.marker


def test_ten_classes_differ_in_colour_and_in_mark():
    looks = [clouds.look(label) for label in range(100)]
    assert len(set(looks)) == 100
    assert len({colour for colour, _ in looks[:10]}) == len({mark for _, mark in looks[:10]}) == 10


@pytest.mark.parametrize(
    ("text", "inches"),
    [
        (None, (None, None)),
        ("column", (3.3465, None)),
        ("page", (6.8504, None)),
        ("3.5x2.25", (3.5, 2.25)),
        ("8.5x6cm", (3.3465, 2.3622)),
        ("4x3 in", (4.0, 3.0)),
    ],
)
def test_sizes(text, inches):
    found = style.parse_size(text)
    assert found == pytest.approx(inches, abs=1e-4) if None not in inches else found[1] is None
    assert (found[0] is None) == (text is None)
    if inches[0] is not None:
        assert found[0] == pytest.approx(inches[0], abs=1e-4)


@pytest.mark.parametrize(
    "text", ["", "wide", "3x", "3x2mm", "-3x2", "0x2", "1x4", "3x900", "1e3x2"]
)
def test_no_size(text):
    with pytest.raises(UsageError, match="--size"):
        style.parse_size(text)


def test_letters_travel_with_vector_formats():
    assert style.STYLE["pdf.fonttype"] == 42
    assert style.STYLE["svg.fonttype"] == "path"
