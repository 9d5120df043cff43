"""Rows 38 to 41: files that are each whole and do not belong together."""

from __future__ import annotations

import json
import shutil

import pytest

from advkit.artifacts import artifact, checkpoint, soft_labels
from advkit.evaluation.partial import Partial
from advkit.evaluation.run import Evaluation
from advkit.runtime import reading
from advkit.softlabels import labelling
from advkit.softlabels.labelling import Labelling
from tests.conftest import SEED

NET = [
    "--data",
    "digits",
    "--limit",
    60,
    "--epochs",
    1,
    "--batch-size",
    16,
    "--width",
    2,
    "--threads",
    1,
    "-q",
]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """The folder of a finished natural run."""
    from advkit.__main__ import main

    folder = tmp_path_factory.mktemp("taught") / "teacher"
    argv = ["train", "--method", "natural", *NET, "-o", folder]
    assert main([str(word) for word in argv]) == 0
    return folder


@pytest.fixture
def two(cli, tmp_path):
    """The folder `run` of a natural run, and the words of one that can take its place."""
    argv = ["train", "--method", "natural", *NET, "-o", tmp_path / "run"]
    assert cli(*argv, "--seed", SEED).code == 0
    return tmp_path / "run", [*argv, "--seed", SEED + 1, "--overwrite"]


def meanwhile(monkeypatch, where, name, act):
    """Let something happen once while a stage works."""
    real, acted = getattr(where, name), []

    def call(*arguments, **named):
        result = real(*arguments, **named)
        if not acted:
            acted.append(1)
            act()
        return result

    monkeypatch.setattr(where, name, call)


STAGES = {
    "attack": (["attack", "--attack", "fgsm", "--limit", 10, "-q"], Evaluation, "run"),
    "softlabels": (["softlabels", "-q"], Labelling, "_describe"),
}


@pytest.mark.parametrize("out", [[], ["-o", "elsewhere.h5"]])
@pytest.mark.parametrize("stage", STAGES)
def test_row_41_a_checkpoint_that_is_replaced_while_it_is_used(
    cli, two, monkeypatch, tmp_path, stage, out
):
    """What was made of the old one is not put beside the new one; the same command then is."""
    from advkit.__main__ import main

    monkeypatch.chdir(tmp_path)
    (folder, other), (words, where, name) = two, STAGES[stage]
    words = [words[0], folder / "best.safetensors", *words[1:], *out]
    with monkeypatch.context() as patch:
        meanwhile(patch, where, name, lambda: main([str(word) for word in other]))
        done = cli(*words)
    assert (done.code, done.out) == (4, ""), done.err
    assert "best.safetensors was replaced or removed while it was in use" in done.err
    assert list(tmp_path.rglob("*.h5")) == []
    again = cli(*words)
    assert again.code == 0, again.err
    now = artifact.read_info(folder / "best.safetensors")["digest"]
    (made,) = tmp_path.rglob("*.h5")
    assert artifact.read_info(made)["parents"][0]["digest"] == now


@pytest.mark.parametrize("gone", [False, True])
def test_row_41_a_checkpoint_that_is_replaced_before_it_is_loaded(
    cli, two, monkeypatch, tmp_path, gone
):
    """The attack's settings come from the checkpoint: they are that one's, or none."""
    from advkit.evaluation import stage

    folder, _ = two
    shutil.copytree(folder, tmp_path / "other")
    assert cli(*two[1]).code == 0
    best = folder / "best.safetensors"

    def act():
        best.unlink() if gone else shutil.copy(tmp_path / "other" / best.name, best)

    meanwhile(monkeypatch, stage, "settings_of", act)
    done = cli("attack", best, "--attack", "fgsm", "--limit", 10, "-q")
    assert (done.code, done.out) == (3 if gone else 4, ""), done.err
    assert list(tmp_path.rglob("*.h5*")) == []


class Cut(BaseException):
    """The process dies here."""


def cut_after(monkeypatch, where, name, calls):
    """Let a process die after so many calls of a method."""
    real, made = getattr(where, name), []

    def call(*arguments, **named):
        if len(made) == calls:
            raise Cut
        made.append(1)
        return real(*arguments, **named)

    monkeypatch.setattr(where, name, call)


BATCHES = [
    "attack",
    "?",
    "--attack",
    "pgd",
    "--steps",
    2,
    "--limit",
    12,
    "--batch-size",
    4,
    "--save-images",
    "-o",
    "a.h5",
]
LABELS = ["softlabels", "?", "--views", 2, "-o", "l.h5"]


def swapped(first, second):
    raw = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(raw)


def rewritten(path, kind, change):
    """Change a store's tensors and give it the digest that they have then."""
    tensors, info = checkpoint.read(path, kind)
    change(tensors, info)
    checkpoint.write(path, tensors, {k: v for k, v in info.items() if k != "digest"})


def put(name, value):
    return lambda tensors, info: tensors.__setitem__(name, value(tensors[name]))


STORES = {
    "nothing": lambda cwd: None,
    "swapped images": lambda cwd: swapped(cwd / "a.h5.part.0", cwd / "a.h5.part.1"),
    "no images": lambda cwd: (cwd / "a.h5.part.1").unlink(),
    "half a file": lambda cwd: (cwd / "a.h5.part").write_bytes(
        (cwd / "a.h5.part").read_bytes()[:-9]
    ),
    "fewer examples": lambda cwd: rewritten(
        cwd / "a.h5.part", "partial", put("norm", lambda norm: norm[:-1])
    ),
    "NaN": lambda cwd: rewritten(
        cwd / "a.h5.part", "partial", put("adversarial", lambda z: z * float("nan"))
    ),
    "all wrong": lambda cwd: rewritten(
        cwd / "a.h5.part", "partial", put("broken_by", lambda by: by.fill_(-2))
    ),
    "rows out of range": lambda cwd: rewritten(
        cwd / "a.h5.part.0", "partial", put("rows", lambda rows: rows + 100)
    ),
    "no tensors": lambda cwd: rewritten(
        cwd / "a.h5.part", "partial", lambda tensors, info: tensors.clear()
    ),
}


@pytest.mark.parametrize("store", STORES)
def test_row_40_batches_are_believed_once_they_are_checked(
    cli, teacher, monkeypatch, tmp_path, store
):
    """Begun anew where anything is wrong; either way the bytes of an evaluation in one go."""
    monkeypatch.chdir(tmp_path)
    words = [teacher / "best.safetensors" if word == "?" else word for word in BATCHES]
    assert cli(*words).code == 0
    whole = (tmp_path / "a.h5").read_bytes()
    (tmp_path / "a.h5").unlink()
    with monkeypatch.context() as patch:
        cut_after(patch, Partial, "save", 2)
        with pytest.raises(Cut):
            cli(*words)
    assert {path.name for path in tmp_path.iterdir()} >= {"a.h5.part", "a.h5.part.0", "a.h5.part.1"}
    STORES[store](tmp_path)
    done = cli(*words)
    assert done.code == 0, done.err
    kept = store == "nothing"
    assert ("going on from the batches" in done.err, "started anew" in done.err) == (kept, not kept)
    assert (tmp_path / "a.h5").read_bytes() == whole
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]


PARTS = {
    "nothing": lambda first, second: None,
    "swapped": swapped,
    "labels": lambda first, second: rewritten(first, "part", put("/labels", lambda y: y.roll(1))),
    "views": lambda first, second: rewritten(first, "part", put("/views", lambda v: v.roll(1))),
    "fewer rows": lambda first, second: rewritten(first, "part", put("/logits", lambda z: z[1:])),
    "more right than there are": lambda first, second: rewritten(
        first, "part", lambda tensors, info: info.__setitem__("hits", 10**6)
    ),
}


@pytest.mark.parametrize("part", PARTS)
def test_row_40_parts_of_labels_are_believed_once_they_are_checked(
    cli, teacher, monkeypatch, tmp_path, part
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(labelling, "PART_BYTES", 40_000)
    words = [teacher / "best.safetensors" if word == "?" else word for word in LABELS]
    assert cli(*words).code == 0
    whole = (tmp_path / "l.h5").read_bytes()
    (tmp_path / "l.h5").unlink()
    with monkeypatch.context() as patch:
        cut_after(patch, soft_labels.Writer, "add", 2)
        with pytest.raises(Cut):
            cli(*words)
    PARTS[part](*sorted((tmp_path / "l.h5.parts").iterdir()))
    done = cli(*words)
    assert done.code == 0, done.err
    assert (tmp_path / "l.h5").read_bytes() == whole


@pytest.mark.parametrize(
    ("words", "part"),
    [(BATCHES, "attacks/pgd"), (BATCHES, "models/small_cnn"), (LABELS, "models/small_cnn")],
)
def test_row_40_an_edited_part_is_other_work(cli, teacher, monkeypatch, tmp_path, words, part):
    """Neither called done with what the old one made, nor gone on with."""
    monkeypatch.chdir(tmp_path)
    words = [teacher / "best.safetensors" if word == "?" else word for word in words]
    assert cli(*words).code == 0
    read = reading.content

    def edited(path, most):
        return read(path, most) + (b"\nrate = 2\n" if str(path).endswith(f"{part}.py") else b"")

    monkeypatch.setattr(reading, "content", edited)
    done = cli(*words)
    assert (done.code, done.out) == (4, "")
    assert f"was made before {part.replace('_', '-')} was edited" in done.err
    assert cli(*words, "--overwrite").code == 0
    assert "already done" in cli(*words).err


@pytest.fixture(scope="module")
def searched(teacher, tmp_path_factory):
    """A folder with a labels file and a search on it, and the search's words."""
    from advkit.__main__ import main

    folder = tmp_path_factory.mktemp("searched")
    label = ["softlabels", teacher / "best.safetensors", "-o", folder / "l.h5", "-q"]
    words = ["search", "temperature", "--soft-labels", folder / "l.h5", "--grid", "1,5"]
    words += ["--refine", 0, "--threshold", "0.0", "--attack-steps", 1, *NET[2:], "-o"]
    for command in (label, [*words, folder / "search"]):
        assert main([str(word) for word in command]) == 0
    return folder / "search", words


FORGED = {
    "9.0": (lambda trial: {**trial, "clean_accuracy": 9.0}, 3, "not in 0..1"),
    "0.999": (lambda trial: {**trial, "clean_accuracy": 0.999}, 4, "was edited"),
    "another temperature": (lambda trial: {**trial, "temperature": 3.0}, 4, "was edited"),
    "no chain": (lambda trial: {k: v for k, v in trial.items() if k != "chain"}, 4, "was edited"),
}


@pytest.mark.parametrize("forged", FORGED)
def test_row_39_a_forged_trial(cli, searched, tmp_path, forged):
    (folder, words), (change, code, text) = searched, FORGED[forged]
    copy = shutil.copytree(folder, tmp_path / "search")
    lines = (copy / "trials.jsonl").read_text().splitlines()
    lines[1] = json.dumps(change(json.loads(lines[1])))
    (copy / "trials.jsonl").write_text("".join(f"{line}\n" for line in lines))
    done = cli(*words, copy)
    assert (done.code, done.out) == (code, ""), done.err
    assert f"trials.jsonl: {'corrupt: in ' if code == 3 else ''}line 2" in done.err
    assert text in done.err
    # The way out that the message names: its runs are there, so that nothing is trained.
    (copy / "trials.jsonl").unlink()
    again = cli(*words, copy)
    assert again.code == 0, again.err
    assert (copy / "trials.jsonl").read_text() == (folder / "trials.jsonl").read_text()
