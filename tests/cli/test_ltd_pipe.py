"""LTD from end to end on the command line: one pipe, its records, its exit codes."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from advkit import data
from advkit.artifacts import checkpoint, soft_labels
from advkit.artifacts.hdf5 import read_logits
from advkit.artifacts.soft_labels import Writer
from advkit.softlabels import labelling
from tests.conftest import SEED

TEACH = ["pretrain-teacher", "--data", "digits", "--width", "8", "--epochs", "2", "-q",
         "--seed", str(SEED)]  # fmt: skip
STUDENT = [
    "--method", "ltd", "--limit", "150", "--epochs", "1", "--batch-size", "32", "--attack-steps",
    "2", "--width", "8", "-q",
]  # fmt: skip
TRAIN = ["train", *STUDENT]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a teacher and its labels, made by the commands; copy it.

    Tests ask for records, files and refusals, and for figures that agree with each other: whatever
    teacher and students learn.
    """
    from advkit.__main__ import main

    top = tmp_path_factory.mktemp("pipe")
    assert main([*TEACH, "-o", str(top / "teacher")]) == 0
    best = str(top / "teacher" / "best.safetensors")
    assert main(["softlabels", best, "--views", "all", "-q"]) == 0
    return top


@pytest.fixture(autouse=True)
def place(made, tmp_path, monkeypatch):
    """Work in a folder of its own."""
    shutil.copytree(made / "teacher", tmp_path / "teacher")
    monkeypatch.chdir(tmp_path)
    return tmp_path


BEST = "teacher/best.safetensors"
LABELS = "teacher/best.labels-views-all.h5"


def refused(outcome, code, *words):
    assert (outcome.code, outcome.out) == (code, ""), outcome.err
    (line,) = outcome.err.splitlines()
    assert line.startswith("advkit")
    assert not [word for word in words if word not in line], line


def digests(description):
    """Yield (kind, digest) of all ancestors."""
    for parent in description["parents"]:
        yield parent["kind"], parent["digest"]
        yield from digests({"parents": parent.get("parents", [])})


def test_one_pipe(cli, tmp_path):
    """Each stage prints one record and reads the one before; data and arch come from the labels."""
    teacher = cli(*TEACH, "-o", "t")
    assert (teacher.record["kind"], teacher.record["method"]) == ("checkpoint", "natural")
    labels = cli("softlabels", "--views", "all", "-q", stdin=teacher.out)
    assert labels.record["kind"] == "labels"
    assert labels.record["path"] == "t/best.labels-views-all.h5"
    assert (labels.record["views"], labels.record["arch"]) == ("all", teacher.record["arch"])
    student = cli(*TRAIN, stdin=labels.out)
    assert {key: student.record[key] for key in ("kind", "data", "arch", "method")} == {
        "kind": "checkpoint", "data": "digits", "arch": "small-cnn", "method": "ltd",
    }  # fmt: skip
    assert student.record["path"] == "runs/digits-small-cnn-ltd-s0/best.safetensors"
    attacked = cli("attack", "--attack", "fgsm", "--limit", "20", "-q", stdin=student.out)
    assert (attacked.record["kind"], attacked.record["n"]) == ("logits", 20)
    assert [each.code for each in (teacher, labels, student, attacked)] == [0] * 4
    found = cli("inspect", "-q", stdin=attacked.out).record
    assert found["whole"] is True
    images = {split: data.load("digits", split).fingerprint for split in ("train", "test")}
    chain = set(digests(found["description"]))
    assert chain == {
        ("checkpoint", student.record["digest"]), ("labels", labels.record["digest"]),
        ("checkpoint", teacher.record["digest"]), ("data", images["train"]),
        ("data", images["test"]),
    }  # fmt: skip
    shown = "\n".join(found["chain"])
    assert all(digest[:19] in shown for _, digest in chain)


def test_the_teacher_on_the_fly(cli):
    teacher = cli(*TEACH, "-o", "teacher")
    student = cli(*TRAIN, "--temperature", "2", "-o", "s", stdin=teacher.out)
    info = checkpoint.read_info(student.record["path"])
    assert info["config"]["labels_digest"] == teacher.record["digest"]
    assert info["config"]["temperature"] == 2.0
    assert [each["kind"] for each in info["parents"]] == ["data", "checkpoint"]


def test_the_run_remembers_its_labels(cli):
    """A second `--resume` needs neither stdin nor options."""
    first = cli(*TRAIN, "--soft-labels", LABELS, "-o", "s")
    again = cli("train", "--resume", "-o", "s")
    assert (again.code, again.record) == (0, {**first.record, "seconds": again.record["seconds"]})
    assert "already done" in again.err


def test_empty_stdin(cli):
    refused(cli(*TRAIN), 3, "labels", "stdin", "the stage before gave nothing")
    refused(cli("softlabels"), 3, "checkpoint", "stdin")
    assert not Path("runs").exists()


def test_a_record_of_another_kind(cli):
    record = json.dumps({"kind": "logits", "path": "a.h5", "digest": "sha256:0"})
    refused(cli(*TRAIN, stdin=record), 3, "got a logits record", "labels or checkpoint")
    refused(cli("softlabels", stdin=record), 3, "got a logits record", "checkpoint")
    record = json.dumps({"kind": "labels", "path": LABELS, "digest": "sha256:0"})
    refused(cli("softlabels", stdin=record), 3, "got a labels record", "checkpoint")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_labels_file(cli, share):
    raw = Path(LABELS).read_bytes()
    Path("x.h5").write_bytes(raw[: int(share * len(raw))])
    refused(cli(*TRAIN, "--soft-labels", "x.h5", "-o", "s"), 3, "x.h5", "corrupt")
    assert not Path("s").exists()


def test_a_flipped_bit(cli):
    raw = bytearray(Path(LABELS).read_bytes())
    raw[len(raw) // 2] ^= 16
    Path("x.h5").write_bytes(raw)
    refused(cli(*TRAIN, "--soft-labels", "x.h5", "-o", "s"), 3, "x.h5")
    assert not Path("s").exists()


def test_a_checkpoint_where_labels_are_wanted(cli):
    refused(cli(*TRAIN, "--soft-labels", BEST, "--data", "digits"), 3, BEST, "labels")
    refused(cli(*TRAIN, "--teacher", LABELS, "--data", "digits"), 3, LABELS, "checkpoint")
    refused(cli(*TRAIN, "--soft-labels", "none.h5"), 3, "none.h5", "no such file")


def other_set(top):
    """Write a folder data set of two classes."""
    import numpy as np
    from PIL import Image

    draw = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("a", "b"):
            (top / split / name).mkdir(parents=True)
            for k in range(30):
                pixels = draw.integers(256, size=(8, 8), dtype=np.uint8)
                Image.fromarray(pixels).save(top / split / name / f"{k:02}.png")
    return f"folder:{top}"


def test_labels_of_another_data_set(cli, tmp_path):
    where = other_set(tmp_path / "set")
    line = [*TRAIN, "--soft-labels", LABELS, "--data", where, "-o", "s", "--batch-size", "8"]
    refused(cli(*line), 4, "10 classes", "2 (a, b)")
    assert not list(Path("s").glob("*.safetensors"))
    refused(cli("softlabels", BEST, "--data", where, "-o", "y.h5"), 4, "10 classes of digits")
    assert not Path("y.h5").exists()


def test_the_image_size_comes_with_the_labels(cli, tmp_path):
    """Students of a folder's labels resize as the teacher did, with no option repeated."""
    where = other_set(tmp_path / "set")
    line = ["--data", where, "--arch", "small-cnn", "--image-size", "6", "--epochs", "1"]
    made = cli("pretrain-teacher", *line, "--batch-size", "16", "--width", "4", "-o", "t", "-q")
    labels = cli("softlabels", "-q", stdin=made.out)
    student = cli(*TRAIN, "--batch-size", "8", "-o", "s", stdin=labels.out)
    assert student.code == 0, student.err
    assert checkpoint.read_info(Path("s/best.safetensors"))["model"]["input_shape"] == [1, 6, 6]


def test_labels_sized_for_a_folder_meet_digits(cli, tmp_path):
    """The image size that the labels know belongs to their data set, not to one that is given."""
    where = other_set(tmp_path / "set")
    line = ["--data", where, "--arch", "small-cnn", "--image-size", "8", "--epochs", "1"]
    made = cli("pretrain-teacher", *line, "--batch-size", "16", "--width", "4", "-o", "t", "-q")
    labels = cli("softlabels", "-q", stdin=made.out)
    assert labels.code == 0, labels.err
    outcome = cli(*TRAIN, "--data", "digits", "-o", "s", stdin=labels.out)
    refused(outcome, 4, "2 classes", "10")


def test_softlabels_again_is_already_done(cli):
    before = Path(LABELS).read_bytes()
    first, again = (cli("softlabels", BEST, "--views", "all") for _ in range(2))
    assert "already done" in again.err
    assert {**first.record, "seconds": 0} == {**again.record, "seconds": 0}
    assert first.record["digest"] == soft_labels.read(LABELS).info["digest"]
    assert Path(LABELS).read_bytes() == before


@pytest.mark.parametrize(
    ("more", "word"),
    [
        (["--views", "2"], "views"), (["--top-k", "3"], "top_k"),
        (["--dtype", "float16"], "dtype"), (["--seed", "3"], "seed"),
    ],
)  # fmt: skip
def test_other_options_on_the_same_output(cli, more, word):
    before = Path(LABELS).read_bytes()
    line = ["softlabels", BEST, "--views", "all", *more, "-o", LABELS]
    refused(cli(*line), 4, word, LABELS, "--overwrite")
    assert Path(LABELS).read_bytes() == before
    outcome = cli(*line, "--overwrite", "-q")
    assert (outcome.code, outcome.record["path"]) == (0, LABELS)
    assert Path(LABELS).read_bytes() != before


def test_another_teacher_on_the_same_output(cli):
    cli(*TEACH, "--seed", SEED + 1, "-o", "other")
    line = ["softlabels", "other/best.safetensors", "--views", "all", "-o", LABELS]
    refused(cli(*line), 4, "teacher", "--overwrite")


def test_names_beside_the_teacher(cli):
    line = ["softlabels", BEST, "--views", "2", "--dtype", "float16", "--top-k", "3", "--seed", "4"]
    assert cli(*line, "-q").record["path"] == "teacher/best.labels-views-2-float16-top3-s4.h5"


def test_an_interrupted_labelling_goes_on(cli, monkeypatch):
    monkeypatch.setattr(labelling, "PART_BYTES", 400 * 4 * 10 * 9)
    line = ["softlabels", BEST, "--views", "all", "-q"]
    assert cli(*line, "-o", "whole.h5").code == 0
    Path(LABELS).unlink()
    original = Writer.add

    def add(self, number, arrays, hits):
        original(self, number, arrays, hits)
        if number == 1:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Writer, "add", add)
        outcome = cli(*line)
    assert (outcome.code, outcome.out) == (143, "")
    assert "ended by SIGTERM: the same command goes on" in outcome.err
    assert sorted(os.listdir(f"{LABELS}.parts")) == [f"part-0000{n}.safetensors" for n in (0, 1)]
    assert cli(*line).code == 0
    assert Path(LABELS).read_bytes() == Path("whole.h5").read_bytes()
    assert not Path(f"{LABELS}.parts").exists()


def test_a_diverged_teacher(cli):
    tensors, info = checkpoint.read(BEST)
    tensors["linear.bias"][0] = float("nan")
    checkpoint.write(Path("teacher/x.safetensors"), tensors, info)
    refused(cli("softlabels", "teacher/x.safetensors"), 5, "linear.bias")
    assert not list(Path("teacher").glob("x.labels*"))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--views", "none"], ["--views none"]), (["--top-k", "10"], ["--top-k 10"]),
        (["-o", "x.txt"], [".h5"]), (["--dtype", "float8"], ["float8"]),
    ],
)  # fmt: skip
def test_usage_of_softlabels(cli, more, words):
    refused(cli("softlabels", BEST, *more), 2, *words)


def test_analyses_of_labels(cli):
    found = cli("analyze", "labels", LABELS, "--temperatures", "1,5").record
    assert (found["n"], found["targets"], found["classes"]) == (1442, 1442 * 9, 10)
    found = cli("analyze", "discrepancy", LABELS, "--temperatures", "1,2,5").record
    assert found["oracle"] == "labels"
    assert found["best_temperature"] in (1, 2, 5)


def test_analyze_temperature_of_a_real_run(cli):
    for t in ("1", "5"):
        line = [*TRAIN, "--soft-labels", LABELS, "--temperature", t, "-o", f"s{t}"]
        student = cli(*line)
        attack = ["--attack", "pgd", "--steps", "3", "--limit", "30", "-o", f"{t}.h5", "-q"]
        assert cli("attack", *attack, stdin=student.out).code == 0
    found = cli("analyze", "temperature", "1.h5", "5.h5", "-o", "t.json")
    assert (found.record["files"], found.record["best_temperature"]) == (2, None)
    rows = json.loads(Path("t.json").read_text())
    logits = read_logits("5.h5")
    clean = float((logits.clean.argmax(1) == logits.labels).double().mean())
    assert str(clean)[:6] in json.dumps(rows)


def test_search_temperature(cli):
    line = ["search", "temperature", LABELS, "--grid", "1,5", "--refine", "0", "--limit", "120"]
    line += ["--epochs", "1", "--batch-size", "32", "--attack-steps", "1", "-o", "s", "-q"]
    first = cli(*line, "--threshold", "0")
    assert (first.record["kind"], first.record["trials"]) == ("analysis", 4)
    assert first.record["temperature"] in (1, 5)
    again = cli(*line, "--threshold", "0")
    assert again.record == first.record
    refused(cli(*line, "--threshold", "0.1"), 4, "other options")
    refused(cli("search", "temperature", "-o", "s2"), 3, "labels", "stdin")
