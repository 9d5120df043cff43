"""A table over corruptions and severities, by hand, and 15 x 5 of them through the command line."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import binomtest

from advkit.analyses.corruptions import analyze
from advkit.errors import InputError, MismatchError
from tests.analyses._files import PGD, certain, file_of

Y = torch.arange(10) % 3


def cell(corruption, severity, right, name="cifar10c", **more):
    """Ten examples, the first `right` of which are answered rightly."""
    says = torch.where(torch.arange(10) < right, Y, (Y + 1) % 3)
    called = f"{name}-{corruption}-{severity}"
    given = {"model": "m", "path": f"{corruption}-{severity}.h5", **more}
    return file_of(certain(says, 3, 0.8), Y, data=called, **given)


def test_two_by_two():
    result = analyze([cell("fog", 1, 9), cell("jpeg_compression", 1, 8), cell("fog", 5, 4),
                      cell("jpeg_compression", 5, 1)])  # fmt: skip
    rows = [dict(zip(result.columns, row, strict=True)) for row in result.rows]
    assert [(row["corruption"], row["severity"], row["accuracy"]) for row in rows] == [
        ("fog", 1, 0.9), ("fog", 5, 0.4), ("jpeg_compression", 1, 0.8),
        ("jpeg_compression", 5, 0.1),
    ]  # fmt: skip
    ends = binomtest(9, 10).proportion_ci(method="wilson")
    assert (rows[0]["low"], rows[0]["high"]) == pytest.approx((ends.low, ends.high))
    assert rows[0]["robust_accuracy"] is None
    numbers = result.numbers
    assert numbers["mean_accuracy"] == pytest.approx(0.55)
    assert numbers["mean_corruption_error"] == pytest.approx(0.45)
    assert (numbers["severity_1"], numbers["severity_5"]) == pytest.approx((0.85, 0.25))
    assert (numbers["corruptions"], numbers["severities"], numbers["complete"]) == (2, 2, True)
    assert result.text.splitlines()[1].split() == ["fog", "90.00%", "40.00%", "65.00%"]
    assert result.text.splitlines()[-1].split() == ["mean", "85.00%", "25.00%", "55.00%"]


def test_the_picture_names_its_net():
    given = [cell("fog", level, 9, path=f"runs/at-s0/fog-{level}.h5") for level in (1, 2)]
    assert "at-s0" in analyze(given).heading


def test_a_table_with_holes_says_so():
    numbers = analyze([cell("fog", 1, 9), cell("snow", 2, 5)]).numbers
    assert numbers["complete"] is False
    assert numbers["mean_accuracy"] == pytest.approx(0.7)


def test_attacked_files_have_robust_accuracy_too():
    robust = torch.arange(10) < 3
    result = analyze([cell("fog", 1, 9, robust=robust), cell("fog", 2, 8, robust=robust)])
    assert result.numbers["mean_robust_accuracy"] == pytest.approx(0.3)
    assert len(result.panels) == 2
    assert result.more == {"differs": {}}


def test_attacks_that_differ_have_no_mean():
    robust = torch.arange(10) < 3
    other = {**PGD, "steps": 50, "eps": "4/255"}
    given = [cell("fog", 1, 9, robust=robust), cell("fog", 2, 8, robust=robust, config=other)]
    result = analyze(given)
    assert "mean_robust_accuracy" not in result.numbers
    assert result.more["differs"].keys() == {"steps", "eps"}
    assert "note: attacked otherwise: " in result.text
    assert result.numbers["mean_accuracy"] == pytest.approx(0.85)
    elsewhere = cell("fog", 3, 9, index=torch.arange(10) + 1)
    with pytest.raises(MismatchError, match="other examples"):
        analyze([given[0], elsewhere])


@pytest.mark.parametrize(
    ("files", "error", "message"),
    [
        ([cell("fog", 1, 9), cell("fog", 1, 8, path="b.h5")], InputError,
         r"fog-1.h5 and b.h5: both are fog at severity 1"),
        ([cell("fog", 1, 9), cell("fog", 2, 9, model="n")], MismatchError, "other checkpoints"),
        ([file_of(certain(Y, 3, 0.8), Y, path="d.h5")], InputError,
         "d.h5: its data are digits, not of cifar10c"),
        ([cell("fog", 1, 9), file_of(certain(Y[:5], 3, 0.8), Y[:5], model="m",
                                     data="cifar10c-fog-2")], MismatchError, "10 and 5 examples"),
    ],
)  # fmt: skip
def test_what_does_not_fit(files, error, message):
    with pytest.raises(error, match=message):
        analyze(files)


@pytest.mark.slow
def test_fifteen_corruptions_in_five_severities_from_files_to_a_table(cli, tmp_path):
    """The table holds what each evaluation alone said."""
    classes = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship",
               "truck")  # fmt: skip
    draw = np.random.default_rng(0)
    for split in ("train", "test"):
        for k, name in enumerate(classes):
            (tmp_path / "own" / split / name).mkdir(parents=True)
            for n in range(6):
                grey = draw.integers(25 * k, 25 * k + 20, (32, 32, 3)).astype(np.uint8)
                Image.fromarray(grey).save(tmp_path / "own" / split / name / f"{n}.png")
    folder = tmp_path / "c"
    folder.mkdir()
    np.save(folder / "labels.npy", draw.integers(10, size=100))
    for k in range(15):
        bright = draw.integers(1, 256, (100, 1, 1, 1))
        images = draw.integers(0, 256, (100, 32, 32, 3)) * bright // 255
        np.save(folder / f"c{k:02}.npy", images.astype(np.uint8))
    run = tmp_path / "run"
    small = ["--arch", "small-cnn", "--width", 4, "--epochs", 1, "--batch-size", 8, "-q"]
    done = cli("train", "--method", "natural", "--data", f"folder:{tmp_path / 'own'}", *small,
               "-o", run)  # fmt: skip
    assert done.code == 0, done.err
    lines, expected = [], {}
    for k in range(15):
        for severity in range(1, 6):
            attack = ["--attack", "none", "--corruption", f"c{k:02}", "--severity", severity]
            made = cli("attack", run / "best.safetensors", "--data", f"cifar10c:{folder}", *attack)
            assert made.code == 0, made.err
            assert made.record["data"] == f"cifar10c-c{k:02}-{severity}"
            expected[f"c{k:02}", severity] = made.record["clean_accuracy"]
            lines.append(made.record["path"])
    table = cli("analyze", "corruptions", "--plot", tmp_path / "c.png",
                stdin="".join(f"{line}\n" for line in lines))  # fmt: skip
    assert table.code == 0, table.err
    rows = {(row["corruption"], row["severity"]): row["accuracy"] for row in table.record["rows"]}
    assert rows == expected
    assert table.record["complete"]
    assert table.record["mean_accuracy"] == pytest.approx(np.mean(list(expected.values())))
