"""Pictures: the three formats get written, others are refused, a terminal has its own."""

import functools
import re
from pathlib import Path

import pytest

from advkit.analyses import calibration, divergence, entropy
from advkit.analyses.drawing import plot
from advkit.analyses.drawing.terminal import spark
from advkit.artifacts.result import Histogram, Result
from advkit.errors import StorageError, UsageError

MAGIC = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}
ANALYSES = {
    "calibration": functools.partial(calibration.analyze, resamples=20),
    "entropy": entropy.analyze,
    "divergence": divergence.analyze,
}


@pytest.mark.parametrize(
    ("name", "suffix"),
    [(name, ".svg") for name in ANALYSES] + [("divergence", ".png"), ("divergence", ".pdf")],
)
def test_written(logits, tmp_path, name, suffix):
    path = tmp_path / f"it{suffix}"
    plot.save(path, [("a run", ANALYSES[name]([logits]))])
    assert path.read_bytes().startswith(MAGIC[suffix])
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", [".SVG", ".pdf", ".png"])
def test_same_result_same_bytes(logits, tmp_path, monkeypatch, suffix):
    """No date hides in a picture, whatever the clock says."""
    paths = [tmp_path / f"{name}{suffix}" for name in "ab"]
    for path, epoch in zip(paths, ("1000000000", "1700000000"), strict=True):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
        plot.save(path, [("a run", divergence.analyze([logits]))])
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_one_row_a_result(logits, tmp_path):
    """A picture of two results is twice as high, and each row has its name."""
    sizes = []
    for count in (1, 2):
        path = tmp_path / f"{count}.svg"
        named = [(f"run {k}", divergence.analyze([logits])) for k in range(count)]
        plot.save(path, named)
        text = path.read_text()
        assert text.count("<!-- run ") == count
        sizes.append(float(re.search(r'height="([\d.]+)pt"', text)[1]))
    assert sizes[1] == pytest.approx(2 * sizes[0])


@pytest.mark.parametrize("name", ["it.gif", "it", "it.png.txt", ".png", "it.jpeg"])
def test_other_formats(name):
    with pytest.raises(UsageError, match=r"\.png, \.svg, \.pdf"):
        plot.check(Path(name))


@pytest.mark.parametrize("name", ["it.png", "it.SVG", "a/it.pdf"])
def test_known_formats(name, tmp_path):
    plot.check(tmp_path / name)


def test_nothing_to_draw(tmp_path):
    with pytest.raises(UsageError, match="no picture"):
        plot.save(tmp_path / "it.png", [("table", Result({}))])
    assert not list(tmp_path.iterdir())


def test_no_such_folder(logits, tmp_path):
    with pytest.raises(StorageError):
        plot.save(tmp_path / "gone" / "it.png", [("x", divergence.analyze([logits]))])


@pytest.mark.parametrize(
    ("counts", "bars"),
    [((0, 4, 8), " ▄█"), ((8, 8, 8), "███"), ((0, 0, 0), "   "), ((1, 2, 3), "▃▅█")],
)
def test_spark(counts, bars):
    (line,) = spark(Histogram("h", (0.0, 0.5, 1.0, 1.5), {"clean": counts}))
    assert line == f"clean  0 {bars} 1.5  (n = {sum(counts)})"


def test_spark_aligns_its_series():
    data = Histogram("h", (0.0, 1.0, 2.0), {"clean": (1, 2), "adversarial": (3, 0)})
    first, second = spark(data)
    assert first.index("0 ") == second.index("0 ")
    assert second.startswith("adversarial  0 █  2")


def test_spark_of_one_bin():
    assert spark(Histogram("h", (0.0, 1.0), {"a": (3,)})) == ["a  0 █ 1  (n = 3)"]


@pytest.mark.parametrize(
    ("width", "letters", "count", "columns"),
    [(6.8, 8, 3, 3), (6.8, 30, 5, 2), (3.4, 30, 5, 1), (3.4, 90, 2, 1), (6.8, 0, 0, 1)],
)
def test_a_legend_is_no_wider_than_the_picture(width, letters, count, columns):
    assert plot._fitting(width, ["x" * letters] * count) == columns
