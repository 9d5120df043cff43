"""`advkit data info`: a record for each split, or one line of all that is wrong and no record."""

from __future__ import annotations

import numpy as np
from PIL import Image

from advkit import data


def pictures(folder, names):
    """Write an image of each class; a name that ends in `broken` gets no image."""
    for name in names:
        (folder / name).mkdir(parents=True)
        path = folder / name / "x.png"
        if name.endswith("broken"):
            path.write_bytes(b"no image")
        else:
            Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)


def test_a_line_of_json_for_each_split(cli):
    outcome = cli("data", "info", "digits")
    train, test = outcome.records
    images = data.load("digits", "train")
    assert (train["kind"], train["path"], train["data"]) == ("data", None, "digits")
    assert (train["split"], test["split"]) == ("train", "test")
    assert (train["n"], train["digest"]) == (len(images.labels), images.fingerprint)
    assert (train["shape"], train["classes"]) == ([1, 8, 8], 10)
    assert {"mean", "std", "augmentation"} <= train.keys() - test.keys()


def test_nothing_is_on_stdout_where_the_test_split_cannot_be_read(cli, tmp_path):
    pictures(tmp_path / "train", ["a", "b"])
    pictures(tmp_path / "test", ["a", "broken"])
    outcome = cli("data", "info", f"folder:{tmp_path}")
    assert (outcome.code, outcome.out) == (3, "")


def test_both_splits_are_told_at_once(cli, tmp_path):
    pictures(tmp_path / "train", ["a", "broken"])
    pictures(tmp_path / "test", ["a", "broken"])
    outcome = cli("data", "info", f"folder:{tmp_path}")
    assert (outcome.code, outcome.out) == (3, "")
    (line,) = outcome.err.splitlines()
    for split in ("train", "test"):
        assert str(tmp_path / split / "broken") in line


def test_a_place_that_is_missing_is_told_once(cli):
    outcome = cli("data", "info", "folder")
    assert outcome.code == 2
    assert outcome.err.count("where is folder?") == 1
