"""The least clear images: figures against scipy, order by hand, pictures against the data set."""

import csv
import json

import numpy as np
import pytest
import scipy.stats
import torch
from PIL import Image
from scipy.special import softmax

from advkit import data
from advkit.analyses.ambiguous import analyze
from advkit.artifacts import provenance, rows, soft_labels
from advkit.artifacts.hdf5 import Logits
from advkit.artifacts.soft_labels import SoftLabels
from advkit.errors import InputError

NAMES = ("cat", "dog", "owl")


def info(kind="labels", split="train", digest="sha256:0", name="folder", **more):
    source = {"kind": "data", "name": name, "split": split, "digest": digest}
    config = {"data": name, "views": "1"}
    return {
        "kind": kind,
        "data": {"name": name, "classes": list(NAMES)},
        "config": config,
        "parents": [{}, source],
        **more,
    }


def labels_of(z, y, **more):
    """A labels file of logits (N, V, 3) in memory."""
    z = torch.as_tensor(np.asarray(z, dtype=np.float32))
    views = torch.zeros(*z.shape[:2], 3, dtype=torch.uint8)
    index = torch.arange(len(z))
    return SoftLabels(index, torch.as_tensor(y), z, views, info(**more), path="t/best.labels.h5")


def logits_of(z, y, index=None):
    z = torch.as_tensor(np.asarray(z, dtype=np.float32))
    index = torch.arange(len(z)) if index is None else torch.as_tensor(index)
    return Logits(index, torch.as_tensor(y), z, info("logits", "test"), path="x.h5")


def shown(result, *columns):
    places = [result.columns.index(column) for column in columns]
    return [tuple(row[place] for place in places) for row in result.rows]


@pytest.mark.parametrize("by", ["entropy", "distance"])
@pytest.mark.parametrize("t", [1.0, 4.0])
def test_figures_and_order(by, t):
    rng = np.random.default_rng(0)
    z, y = (rng.normal(size=(40, 5, 3)) * 3).astype(np.float32), rng.integers(3, size=40)
    result = analyze([labels_of(z, y)], by=by, count=7, top=2, temperature=t)
    p = softmax(z.astype(np.float64) / t, axis=2).mean(1)
    entropy, distance = scipy.stats.entropy(p, axis=1), 1 - p[np.arange(40), y]
    order = np.argsort(-(entropy if by == "entropy" else distance))[:7]
    assert result.columns[4:] == ("class_1", "probability_1", "class_2", "probability_2")
    for row, k in zip(result.rows, order, strict=True):
        first, second = np.argsort(-p[k])[:2]
        assert (row[0], row[1], row[4], row[6]) == (k, NAMES[y[k]], NAMES[first], NAMES[second])
        wanted = [entropy[k], distance[k], p[k, first], p[k, second]]
        np.testing.assert_allclose([row[2], row[3], row[5], row[7]], wanted, atol=1e-12)
    numbers = result.numbers
    assert (numbers["n"], numbers["shown"], numbers["by"]) == (40, 7, by)
    assert numbers["mean_entropy"] == pytest.approx(entropy.mean(), abs=1e-12)
    assert numbers["mean_distance"] == pytest.approx(distance.mean(), abs=1e-12)
    assert numbers["max_entropy"] == pytest.approx(np.log(3), abs=1e-12)


def test_equal_ones_by_index_and_equal_classes_in_their_order():
    """Four rows of the same numbers in other classes, one flat row, and one that is sure."""
    z = [[5, 0, 1], [1, 5, 0], [0, 1, 5], [2, 2, 2], [9, 0, 0], [1, 0, 5]]
    order = [3, 0, 1, 2, 5, 4]
    for moved in (list(range(6)), [4, 2, 5, 0, 3, 1]):
        file = logits_of([z[k] for k in moved], [0] * 6, moved)
        result = analyze([file], count=20)
        assert shown(result, "index") == [(k,) for k in order]
        flat = dict(zip(result.columns, result.rows[0], strict=True))
        assert [flat[f"class_{k}"] for k in (1, 2, 3)] == list(NAMES)
        far = analyze([file], by="distance", count=3)
        # Off class 0: rows 1, 2 and 5 hold e and 1 there, of e⁵ + e + 1.
        assert [k for k, *_ in far.rows] == [2, 1, 5]


def test_a_sure_teacher():
    """1 − p would be 0 in all of them: the mass is e^(−z) twice, within the first order."""
    z = [[100, 0, 0], [90, 0, 0], [95, 0, 0]]
    result = analyze([logits_of(z, [0, 0, 0])], by="distance")
    # Below the decimals that count as equal, so by index; the figures are there all the same.
    assert shown(result, "index") == [(0,), (1,), (2,)]
    np.testing.assert_allclose(
        [row[3] for row in result.rows], 2 * np.exp([-100.0, -90.0, -95.0]), rtol=1e-9
    )


def test_pieces_and_more_classes_than_there_are(monkeypatch):
    rng = np.random.default_rng(1)
    case = labels_of(rng.normal(size=(30, 2, 3)), rng.integers(3, size=30))
    whole = analyze([case], top=9, count=30)
    assert len(whole.columns) == 4 + 2 * 3
    monkeypatch.setattr(rows, "PIECE", 7)
    pieces = analyze([case], top=9, count=30)
    assert shown(pieces, "index", "class_1") == shown(whole, "index", "class_1")
    np.testing.assert_allclose(
        [row[2:4] for row in pieces.rows], [row[2:4] for row in whole.rows], atol=1e-14
    )


def test_outside_data_has_no_labels():
    with pytest.raises(InputError, match="needs labels"):
        analyze([logits_of([[1, 2, 3]], [-1])])


@pytest.fixture
def place(tmp_path):
    """A folder of 4 images a class to train on, each of one colour of its own."""
    for split, count in (("train", 4), ("test", 1)):
        for c, name in enumerate(NAMES):
            top = tmp_path / "set" / split / name
            top.mkdir(parents=True)
            for k in range(count):
                Image.new("RGB", (6, 6), (c * 80, k * 60, 255 * (split == "test"))).save(
                    top / f"{k}.png"
                )
    return tmp_path / "set"


@pytest.fixture
def written(place, tmp_path):
    """A labels file of those images, in which images 7, 2 and 9 are the flattest, in this order."""
    images = data.load(f"folder:{place}", "train")
    z = np.tile(np.array([8.0, 0, 0], dtype=np.float32), (12, 1))
    z[7], z[2], z[9] = (0.0, 0, 0), (1.0, 0, 0), (2.0, 0, 0)
    y = images.labels.numpy()
    teacher = {
        "kind": "checkpoint",
        "digest": "sha256:t",
        "seed": 0,
        "method": "natural",
        "arch": "small-cnn",
        "role": "best",
        "parents": [],
    }
    described = provenance.describe(
        "labels",
        config={"data": "folder", "views": "1", "dtype": "float32", "top_k": None, "seed": 0},
        seed=0,
        parents=[
            teacher,
            provenance.data_parent("folder", "train", images.fingerprint),
        ],
        environment={"device": "cpu", "threads": 1},
        method="natural",
        arch="small-cnn",
        data={"name": "folder", "classes": list(NAMES)},
        pad=0,
        flip=True,
        split={"split_seed": 0, "val_size": 3, "limit": None},
        teacher_accuracy=0.5,
    )
    out = tmp_path / "run" / "best.labels.h5"
    out.parent.mkdir()
    part = {"/index": np.arange(12), "/labels": y, "/logits": z - z.max(1, keepdims=True)}
    soft_labels.write(out, [part], described)
    return out


def test_the_picture_shows_the_rows_images(written, place):
    result = analyze([soft_labels.read(written)], count=3, data=f"folder:{place}")
    assert shown(result, "index", "label") == [(7, "dog"), (2, "cat"), (9, "owl")]
    (panel,) = result.panels
    # Image 7 is dog's fourth of four, image 2 cat's third, image 9 owl's second.
    assert panel.pixels()[:, :, 0, 0].tolist() == [[80, 180, 0], [0, 120, 0], [160, 60, 0]]
    tile = panel.tiles[0]
    assert (tile.label, tile.classes) == ("dog", NAMES)


def test_on_the_command_line(written, place, cli, tmp_path):
    """The picture needs the data; a table does not, and says nothing of where they lie."""
    plot, csvs = tmp_path / "p.png", tmp_path / "t.csv"
    named = ("--data", f"folder:{place}")
    done = cli("analyze", "ambiguous", written, "--count", 2, *named, "--plot", plot, "--json")
    assert done.code == 0, done.err
    assert plot.exists()
    assert [row["index"] for row in done.record["rows"]] == [7, 2]
    plain = cli("analyze", "ambiguous", written, "--count", 2, "-o", csvs, "--json")
    assert plain.record["digest"] == done.record["digest"]
    assert str(place) not in json.dumps(plain.record)
    with csvs.open(newline="") as file:
        assert [row["index"] for row in csv.DictReader(file)] == ["7", "2"]


def test_the_run_folder_says_where_the_data_lie(written, place, cli, tmp_path):
    plot = tmp_path / "p.png"
    lost = cli("analyze", "ambiguous", written, "--plot", plot)
    assert lost.code == 2
    assert "folder:DIR" in lost.err
    assert not plot.exists()
    (written.parent / "config.toml").write_text(f'data = "folder:{place}"\n')
    assert cli("analyze", "ambiguous", written, "--plot", plot).code == 0
    assert plot.exists()


@pytest.mark.parametrize("odd", ["digits", "changed"])
def test_other_images_are_refused_before_any_work(odd, written, place, cli):
    named = "digits"
    if odd == "changed":
        Image.new("RGB", (6, 6), (1, 2, 3)).save(place / "train" / "cat" / "0.png")
        named = f"folder:{place}"
    done = cli("analyze", "ambiguous", written, "--data", named)
    assert done.code == 4
    assert done.err.count("\n") == 1
    assert str(written) in done.err
    assert done.out == ""


@pytest.mark.parametrize(
    ("flag", "value"),
    [("--count", 0), ("--top", 0), ("--temperature", 0), ("--by", "x"), ("--image-size", 0)],
)
def test_impossible_options(flag, value, written, cli):
    done = cli("analyze", "ambiguous", written, flag, value)
    assert done.code == 2
    assert flag in done.err


def test_logits_of_the_test_split(place):
    """A checkpoint's clean logits, whose index is of the test split."""
    images = data.load(f"folder:{place}", "test")
    file = logits_of([[9, 0, 0], [0, 0, 1], [0, 0, 9]], [0, 1, 2])
    parents = [
        {},
        {"kind": "data", "name": "folder", "split": "test", "digest": images.fingerprint},
    ]
    named = Logits(file.index, file.labels, file.clean, {**file.info, "parents": parents}, path="x")
    result = analyze([named], by="distance", count=1, data=f"folder:{place}")
    assert result.panels[0].pixels()[0, :, 0, 0].tolist() == [80, 0, 255]
