"""CIFAR-10-C in its true format, small: which rows are which severity, and what is refused."""

import numpy as np
import pytest

from advkit import data
from advkit.errors import InputError, UsageError

RNG = np.random.default_rng(0)
LABELS = np.tile(np.arange(6) % 10, 5)


def write(folder, name="fog", labels=LABELS, **changes):
    images = changes.get("images", RNG.integers(0, 256, (30, 32, 32, 3), np.uint8))
    np.save(folder / f"{name}.npy", images)
    np.save(folder / "labels.npy", labels)
    return images


@pytest.mark.parametrize("severity", [1, 3, 5])
@pytest.mark.parametrize("name", ["cifar10c", "cifar100c"])
def test_a_severity_is_a_fifth_of_the_file(tmp_path, name, severity):
    images = write(tmp_path)
    own = data.load(f"{name}:{tmp_path}", "test", corruption="fog", severity=severity)
    rows = slice(6 * (severity - 1), 6 * severity)
    assert (own.images.permute(0, 2, 3, 1).numpy() == images[rows]).all()
    assert own.labels.tolist() == LABELS[rows].tolist()
    assert own.name == f"{name}-fog-{severity}"
    assert len(own.classes) == (10 if name == "cifar10c" else 100)


def test_the_classes_are_torchvisions(tmp_path):
    write(tmp_path)
    own = data.load(f"cifar10c:{tmp_path}", "test", corruption="fog", severity=1)
    assert own.classes == ("airplane", "automobile", "bird", "cat", "deer",
                           "dog", "frog", "horse", "ship", "truck")  # fmt: skip


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, UsageError, r"needs --corruption \(fog\) and --severity"),
        ({"corruption": "fog"}, UsageError, "and --severity"),
        ({"corruption": "frog", "severity": 1}, UsageError, "'fog'"),
        ({"corruption": "fog", "severity": 6}, UsageError, "--severity 6 is not in 1..5"),
    ],
)
def test_options_that_name_nothing(tmp_path, options, error, message):
    write(tmp_path)
    with pytest.raises(error, match=message):
        data.load(f"cifar10c:{tmp_path}", "test", **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": np.zeros((30, 32, 32, 3))}, r"fog.npy: float64 \(30, 32, 32, 3\), not uint8"),
        ({"images": np.zeros((30, 3, 32, 32), np.uint8)}, "not uint8"),
        ({"images": np.zeros((29, 8, 8, 3), np.uint8), "labels": LABELS[:29]}, "five severities"),
        ({"labels": LABELS[:20]}, r"labels.npy: int64 \(20,\), not whole numbers for the 30"),
        ({"labels": LABELS.astype(float)}, "labels.npy: float64"),
        ({"labels": LABELS + 5}, r"cifar10c-fog-1: label 10 of example 5 is not in 0..9"),
    ],
)
def test_other_arrays_are_refused(tmp_path, change, message):
    write(tmp_path, **change)
    with pytest.raises(InputError, match=message):
        data.load(f"cifar10c:{tmp_path}", "test", corruption="fog", severity=1)


def test_damaged_files_and_python_objects_are_refused_in_a_line(tmp_path):
    write(tmp_path)
    path = tmp_path / "fog.npy"
    whole = path.read_bytes()
    for damaged in (whole[:50], whole[:-1], b"<html>", b""):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="not a readable npy file") as caught:
            data.load(f"cifar10c:{tmp_path}", "test", corruption="fog", severity=1)
        assert "\n" not in str(caught.value)
    np.save(path, np.array([print], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="not a readable npy file"):
        data.load(f"cifar10c:{tmp_path}", "test", corruption="fog", severity=1)


def test_there_is_nothing_to_train_on(tmp_path):
    write(tmp_path)
    with pytest.raises(InputError, match="test images alone"):
        data.load(f"cifar10c:{tmp_path}", "train", corruption="fog", severity=1)
