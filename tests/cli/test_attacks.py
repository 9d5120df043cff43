"""Every attack by name from the command line: records, refusals, going on after a failure."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from advkit import models, registry
from advkit.__main__ import main
from advkit.artifacts import checkpoint, hdf5
from advkit.attacks import pgd
from advkit.attacks.upstream import autoattack
from tests.conftest import SEED

BEST, FINAL = "run/best.safetensors", "run/final.safetensors"
FEW = ["--limit", "20", "-q"]
QUICK = {
    "apgd-ce": ["--steps", "4"],
    "apgd-dlr": ["--steps", "4"],
    "apgd-t": ["--steps", "3", "--targets", "2"],
    "fab-t": ["--steps", "2", "--targets", "2"],
    "square": ["--queries", "20"],
    "transfer": ["--steps", "3", "--surrogate", FINAL],
    "pgd": ["--steps", "3"],
    "pma": ["--steps", "3"],
    "fgsm": [],
    "none": [],
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Natural training for two epochs.

    What it reaches differs between machines: tests ask that verdicts, logits and figures agree
    with each other, that work repeats, and what is refused. That attacks break what can be broken
    is tested on planted nets.
    """
    folder = tmp_path_factory.mktemp("trained") / "run"
    words = ["--data", "digits", "--epochs", "2", "--batch-size", "32", "--width", "8"]
    words += ["--seed", str(SEED)]
    assert main(["train", "--method", "natural-wa", *words, "-o", str(folder), "-q"]) == 0
    return folder


@pytest.fixture(autouse=True)
def place(trained, tmp_path, monkeypatch):
    shutil.copytree(trained, tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(outcome, code, *words):
    assert (outcome.code, outcome.out) == (code, ""), outcome.err
    (line,) = outcome.err.splitlines()
    assert not [word for word in words if word not in line], line


def test_every_attack_is_here():
    assert QUICK.keys() == registry.parts("attacks").keys()


@pytest.mark.parametrize("name", [each for each in QUICK if each != "none"])
@pytest.mark.parametrize(
    "norm", [["--eps", "0.05"], ["--norm", "l2", "--eps", "0.5"]], ids=["linf", "l2"]
)
def test_each_by_name(cli, name, norm):
    done = cli("attack", BEST, "--attack", name, *QUICK[name], *norm, *FEW)
    assert done.code == 0, done.err
    record = done.record
    assert (record["attack"], record["n"]) == (name, 20)
    assert record["accuracy_after"] == {name: record["robust_accuracy"]}
    assert record["robust_accuracy"] <= record["clean_accuracy"]
    assert Path(record["path"]).name.startswith(
        f"best.{name}-{'l2' if norm[0] == '--norm' else 'linf'}-"
    )
    logits = hdf5.read_logits(record["path"])
    assert logits.attacks == [name]
    wrong, broken = logits.clean.argmax(1) != logits.labels, logits.broken_by == 0
    assert torch.equal(logits.broken_by == -2, wrong)
    assert bool((logits.adversarial.argmax(1) != logits.labels)[broken].all())
    assert record["clean_accuracy"] == pytest.approx(1 - wrong.double().mean())
    assert record["robust_accuracy"] == pytest.approx((logits.broken_by == -1).double().mean())
    assert float(logits.norm.min()) > 0, "every example has logits under attack"
    again = cli("attack", BEST, "--attack", name, *QUICK[name], *norm, *FEW)
    assert again.record == {**record, "seconds": 0.0}


def test_options_are_recorded(cli):
    record = cli("attack", BEST, "--attack", "apgd-t", *QUICK["apgd-t"], *FEW).record
    config = hdf5.read_logits(record["path"]).info["config"]
    assert {**config, "steps": 3, "targets": 2, "restarts": 1} == config
    assert record["path"].endswith("-steps-3-targets-2.h5")
    other = cli("attack", BEST, "--attack", "apgd-t", "--steps", "4", "--targets", "2", *FEW,
                "-o", record["path"])  # fmt: skip
    refused(other, 4, "steps: 3 -> 4")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "--fast"),
        ("--fast --autoattack", "--fast"),
        ("--fast --attack pgd", "--fast"),
        ("--fast --version plus", "--version"),
        ("--fast --steps 4", "--steps has no meaning for --fast"),
        ("--autoattack --queries 4", "--queries has no meaning for --autoattack"),
        ("--attack fast", "'fast'"),
        ("--attack apgd", "'apgd-ce'"),
        ("--attack apgd-ce --step-size eps/4", "--step-size"),
        ("--attack apgd-ce --steps 0", "--steps"),
        ("--attack apgd-t --targets 0", "--targets"),
        ("--attack fab-t --restarts 0", "--restarts"),
        ("--attack square --queries 0", "--queries"),
        ("--attack square --steps 3", "--steps"),
        ("--attack transfer", "needs --surrogate"),
        (f"--attack pgd --surrogate {FINAL}", "--attack transfer"),
        (f"--autoattack --surrogate {FINAL}", "--attack transfer"),
        (f"--fast --surrogate {FINAL}", "--attack transfer"),
        (f"--attack transfer --surrogate {FINAL} --queries 4", "--queries"),
    ],
)
def test_2_wrong_usage(cli, words, said):
    refused(cli("attack", BEST, *words.split(), *FEW), 2, said)


def test_3_no_such_surrogate(cli):
    done = cli("attack", BEST, "--attack", "transfer", "--surrogate", "no.safetensors", *FEW)
    refused(done, 3, "no.safetensors")


def changed(name, change):
    tensors, info = checkpoint.read(FINAL)
    change(tensors, info)
    checkpoint.write(Path(name), tensors, {k: v for k, v in info.items() if k != "digest"})
    return name


def test_4_surrogate_of_other_classes(cli):
    def rename(tensors, info):
        info["data"]["classes"] = [f"c{each}" for each in info["data"]["classes"]]

    name = changed("x.safetensors", rename)
    done = cli("attack", BEST, "--attack", "transfer", "--surrogate", name, *FEW)
    refused(done, 4, "classes")


def test_5_surrogate_that_is_not_finite(cli):
    name = changed("x.safetensors", lambda tensors, info: tensors[max(tensors)].fill_(torch.nan))
    done = cli("attack", BEST, "--attack", "transfer", "--surrogate", name, *FEW)
    refused(done, 5, "x.safetensors", "NaN")


def test_transfer_knows_its_surrogate_by_content(cli, place):
    words = ["attack", BEST, "--attack", "transfer", *FEW, "--surrogate"]
    first = cli(*words, FINAL).record
    shutil.copy(FINAL, place / "moved.safetensors")
    assert cli(*words, "moved.safetensors").record == {**first, "seconds": 0.0}
    other = cli(*words, "run/final-ema.safetensors").record
    assert other["path"] != first["path"]
    refused(cli(*words, "run/final-ema.safetensors", "-o", first["path"]), 4, "surrogate")
    info = hdf5.read_logits(first["path"]).info
    digests = [each["digest"] for each in info["parents"]]
    known = [checkpoint.read_info(each)["digest"] for each in (BEST, FINAL)]
    assert digests[:2] == known
    assert "final.safetensors" not in json.dumps(info)
    assert cli("inspect", first["path"]).code == 0


def test_fast_is_never_called_autoattack(cli):
    done = cli("attack", BEST, "--fast", "--limit", "6")
    assert done.code == 0, done.err
    record = done.record
    assert record["attack"] == "fast"
    assert list(record["accuracy_after"]) == ["apgd-ce", "apgd-t"]
    assert Path(record["path"]).name.startswith("best.fast-linf-")
    assert "autoattack" not in (json.dumps(record) + done.err).lower()


@pytest.mark.parametrize(
    ("name", "owner", "function", "stop"),
    [("apgd-ce", autoattack, "apgd", 1), ("apgd-ce", autoattack, "apgd", 4),
     ("transfer", pgd, "attack", 2)],
)  # fmt: skip
def test_interrupted_work_gives_the_same_bytes(cli, monkeypatch, name, owner, function, stop):
    words = ["attack", BEST, "--attack", name, *QUICK[name], "--limit", "40", "-q"]
    words += ["--eps", "0.05", "--batch-size", "5", "--save-images"]
    original, calls, cut = getattr(owner, function), [], []

    def counted(*arguments, **options):
        calls.append(1)
        if [len(calls)] == cut:
            raise RuntimeError("cut off")
        return original(*arguments, **options)

    monkeypatch.setattr(owner, function, counted)
    assert cli(*words, "-o", "whole.h5").code == 0
    needed = len(calls)
    calls.clear()
    cut.append(stop + 1)
    assert cli(*words, "-o", "cut.h5").code == 1
    assert Path("cut.h5.part").exists()
    cut.clear()
    assert cli(*words, "-o", "cut.h5").code == 0
    assert len(calls) == needed + 1, "only the batch that was cut off is done twice"
    assert Path("cut.h5").read_bytes() == Path("whole.h5").read_bytes()
    assert not list(Path().glob("cut.h5.part*"))


def test_done_by_another_implementation(cli, monkeypatch):
    """Other batches, seeds or package: other verdicts, so not the same work."""
    words = ["attack", BEST, "--attack", "apgd-ce", *QUICK["apgd-ce"], *FEW]
    fast = ["attack", BEST, "--fast", "--eps", "0.3", *FEW]
    assert cli(*words).code == cli(*fast).code == 0
    before = autoattack.SCHEME
    monkeypatch.setattr(autoattack, "SCHEME", "otherwise")
    refused(cli(*fast), 4, "implementation: pyautoattack", before, "otherwise", "--overwrite")
    assert cli(*words).code == 0, "the single attacks have no such scheme"
    monkeypatch.setattr(autoattack, "package", lambda: "pyautoattack 9")
    refused(cli(*words), 4, "pyautoattack 9")


def test_images_are_those_of_the_verdicts(cli):
    words = ["attack", BEST, "--attack", "apgd-ce", "--steps", "5", "--limit", "100", "-q"]
    words += ["--eps", "0.05", "--save-images", "--batch-size", "9"]
    record = cli(*words).record
    found = hdf5.read_logits(record["path"])
    model, _ = models.load(BEST)
    with torch.no_grad():
        logits = model(found.images)
    torch.testing.assert_close(logits, found.adversarial, atol=1e-4, rtol=1e-4)
    fell = found.broken_by == 0
    assert bool((found.adversarial.argmax(1) != found.labels)[fell].all())
    share = record["clean_accuracy"] - record["robust_accuracy"]
    assert int(fell.sum()) == round(100 * share)
