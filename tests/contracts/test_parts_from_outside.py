"""Parts of other people: folders, files and installed packages, end to end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from advkit import registry
from advkit.contracts import new
from tests.conftest import TINY

SHELVES = [shelf for shelf in registry.CONTRACTS if (new.TEMPLATES / f"{shelf}.txt").exists()]
HALVED = (new.TEMPLATES / "labels.txt").read_text(encoding="utf-8")
MODEL = (new.TEMPLATES / "models.txt").read_text(encoding="utf-8")


@pytest.fixture
def folder(tmp_path):
    """A folder with a label source and a net."""
    put(tmp_path / "mine" / "labels" / "halved.py", HALVED)
    put(tmp_path / "mine" / "models" / "my_net.py", MODEL)
    return tmp_path / "mine"


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


RESOLVED = ("train", "--data", "digits", "--objective", "at", "--print-config")


def error(outcome, code: int) -> str:
    assert outcome.code == code, outcome.err
    (line,) = outcome.err.splitlines()
    return line


# --- what a folder gives ---


def test_a_folder_s_parts_are_words_of_the_command_line(cli, folder, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    out = cli("train", "--help", "--parts", folder).out
    assert "halved: A share of the probability" in out
    assert "my-net: Two convolutions" in out
    assert "--true-share" in out
    assert "halved" not in cli("train", "--help").out
    given = cli(*RESOLVED, "--labels", "halved", "--true-share", "0.6", f"--parts={folder}")
    assert "true_share = 0.6  # flag" in given.out


def test_the_environment_names_folders_as_path_does(cli, folder, tmp_path, monkeypatch):
    put(tmp_path / "more" / "labels" / "other.py", HALVED.replace("true_share", "other_share"))
    monkeypatch.setenv("ADVKIT_PARTS", f"{folder}:{tmp_path / 'more'}:")
    assert "true_share = 0.5" in cli(*RESOLVED, "--labels", "halved").out
    assert "other_share = 0.5" in cli(*RESOLVED, "--labels", "other").out
    # What is named twice is there once.
    assert cli(*RESOLVED, "--labels", "halved", "--parts", folder).code == 0
    monkeypatch.delenv("ADVKIT_PARTS")
    assert "unknown label source 'halved'" in error(cli(*RESOLVED, "--labels", "halved"), 2)


def test_options_are_keys_of_a_configuration_file(cli, folder, tmp_path):
    text = 'data = "digits"\nobjective = "at"\nlabels = "halved"\ntrue_share = 0.7\n'
    file = put(tmp_path / "run.toml", text)
    assert "true_share = 0.7" in cli("train", "--print-config", "--config", file,
                                     "--parts", folder).out  # fmt: skip
    outside = cli(*RESOLVED, "--labels", "halved", "--true-share", "2", "--parts", folder)
    assert "--true-share 2.0 is not in [0, 1]" in error(outside, 2)


def test_listing_says_where_each_part_comes_from(cli, folder):
    records = cli("parts", "list", "--parts", folder).records
    mine = {f"{r['shelf']}/{r['name']}": r for r in records if r["origin"] == "folder"}
    assert mine.keys() == {"labels/halved", "models/my-net"}
    assert mine["labels/halved"]["options"] == ["--true-share"]
    own = {(r["shelf"], r["name"]) for r in records if r["origin"] == "built in"}
    with registry.using():
        every = {(shelf, name) for shelf in registry.CONTRACTS for name in registry.parts(shelf)}
    assert own == every


# --- names and files that cannot be ---


def test_a_name_that_hides_a_built_in_names_both_files(cli, folder):
    hiding = put(folder / "labels" / "onehot.py", HALVED)
    line = error(cli("train", "--help", "--parts", folder), 2)
    assert f"{hiding} (folder {folder}) has the name of " in line
    assert str(registry.ROOT / "labels" / "onehot.py") in line


def test_a_name_that_is_there_twice_names_both_files(cli, folder, tmp_path):
    second = put(tmp_path / "more" / "labels" / "halved.py", HALVED)
    line = error(cli("parts", "list", "--parts", folder, "--parts", tmp_path / "more"), 2)
    assert str(second) in line
    assert str(folder / "labels" / "halved.py") in line


@pytest.mark.parametrize(
    ("source", "line"),
    [("def targets(\n", 1), (HALVED.replace("LIMITS", "LIMIT"), 11)],
    ids=["torn", "misdeclared"],
)
@pytest.mark.parametrize("used", [["--labels", "halved"], ["--true-share", "0.5"]])
def test_a_broken_file_is_named_with_its_line(cli, folder, source, line, used):
    path = put(folder / "labels" / "halved.py", source)
    words = error(cli(*RESOLVED, *used, "--parts", folder), 2)
    assert f"{path} is not a proper part: line {line}: " in words


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("true_share", "seed", "line 14: --seed is already an option of training itself"),
        ("true_share", "json", "line 14: --json is already an option of advkit train"),
        ("true_share: float = 0.5", "tau: float = 0.5",
         "line 14: --tau is already an option of another kind: adr (str) and halved (float)"),
        ("true_share: float", "width: float",
         "line 14: --width is already an option of another part: float and int"),
    ],
)  # fmt: skip
def test_an_option_whose_name_is_taken(cli, folder, old, new, words):
    source = HALVED.replace(old, new) if ":" not in old else HALVED.replace(old, new).replace(
        "true_share", new.partition(":")[0])  # fmt: skip
    path = put(folder / "labels" / "halved.py", source)
    line = error(cli("train", "--help", "--parts", folder), 2)
    assert f"{path} is not a proper part: {words}" in line


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ("nowhere", "no such folder"),
        ("mine/labels", "none of which is there"),
        ("no.py", "no such file"),
    ],
)  # fmt: skip
def test_a_place_without_parts(cli, folder, monkeypatch, named, words):
    monkeypatch.chdir(folder.parent)
    assert words in error(cli("presets", "--parts", named), 2)
    monkeypatch.setenv("ADVKIT_PARTS", named)
    line = error(cli("presets"), 2)
    assert words in line
    assert f"ADVKIT_PARTS {named}" in line


def test_a_pipe_in_the_place_of_a_part_is_not_waited_for(cli, folder):
    os.mkfifo(folder / "labels" / "pipe.py")
    line = error(cli(*RESOLVED, "--labels", "pipe", "--parts", folder), 2)
    assert "pipe.py is not a proper part: line 1: " in line
    assert "a pipe, socket or device" in line


def test_what_stops_an_import_is_named_with_its_line(cli, folder):
    edit(folder / "labels" / "halved.py", "LIMITS", "_X = nothing_of_that_name\nLIMITS")
    line = error(cli("train", *TINY, "-q", "--labels", "halved", "--parts", folder), 2)
    assert f"{folder / 'labels' / 'halved.py'} cannot be imported: line 11: NameError" in line
    edit(folder / "labels" / "halved.py", "_X = nothing_of_that_name", "import no_such_module")
    line = error(cli("train", *TINY, "-q", "--labels", "halved", "--parts", folder), 2)
    assert "line 11: there is no module no_such_module" in line
    assert "pip install" not in line


# --- one model file ---


def test_a_model_file_by_its_path_and_function(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "nets" / "my_net.py", MODEL)
    first = cli(*RESOLVED, "--arch", "nets/my_net.py", "--filters", "4").out
    assert 'arch = "my-net"  # flag' in first
    assert "filters = 4  # flag" in first
    edit(tmp_path / "nets" / "my_net.py", "def build(", "def make(")
    assert 'arch = "my-net:make"' in cli(*RESOLVED, "--arch", "nets/my_net.py:make").out
    line = error(cli(*RESOLVED, "--arch", "nets/my_net.py"), 2)
    assert "nets/my_net.py is not a proper part: line 1: it has no function build(classes" in line
    put(tmp_path / "file.toml", 'data = "digits"\narch = "nets/my_net.py:make"\nfilters = 3\n')
    assert "filters = 3" in cli("train", "--print-config", "--config", "file.toml").out


def test_a_net_that_knows_nothing_of_advkit(tmp_path):
    """No docstring, no statistics: it gets normalised images, its weights keep their names."""
    from advkit import models

    put(tmp_path / "body.py", "from torch import nn\n\nclass Body(nn.Sequential):\n    pass\n")
    path = put(
        tmp_path / "plain.py",
        "from torch import nn\n\nfrom .body import Body\n\n\n"
        "def build(classes, *, width: int = 5):\n"
        "    return Body(nn.Flatten(), nn.Linear(8, width), nn.Linear(width, classes))\n",
    )
    with registry.using(str(path)):
        net = models.build(
            "plain", 3, channels=2, statistics=([0.5, 0.25], [0.5, 2.0]), seed=0, width=4
        )
    assert [*net.state_dict()] == ["mean", "std", "1.weight", "1.bias", "2.weight", "2.bias"]
    x = torch.rand(6, 2, 2, 2)
    normal = (x - torch.tensor([0.5, 0.25]).view(2, 1, 1)) / torch.tensor([0.5, 2.0]).view(2, 1, 1)
    torch.testing.assert_close(net(x), net[2](net[1](normal.flatten(1))))


def test_a_file_that_makes_no_net(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "odd.py", "def build(classes):\n    return classes\n")
    line = error(cli("train", "--data", "digits", "--arch", "odd.py", "--method", "at", "-q"), 2)
    assert line.endswith("odd.py: what it builds is of type int, no torch.nn.Module")


def test_a_file_in_a_folder_and_in_a_package_mean_the_same(tmp_path):
    """So that a net may move from one to the other after it was trained."""
    from advkit.registry import sources

    file = put(tmp_path / "a" / "models" / "my_net.py", MODEL)
    digests = set()
    for place in (str(file), str(tmp_path / "a")):
        with registry.using(place):
            digests.add(sources.digest("models", "my-net"))
    assert len(digests) == 1


def test_the_source_is_all_that_goes_with_it(tmp_path):
    from advkit.registry import sources

    halved = put(tmp_path / "labels" / "halved.py", HALVED + "\nfrom ._near import near\n"
                 "from ..common import far\n")  # fmt: skip
    near = put(tmp_path / "labels" / "_near.py", "near = 1\n")
    far = put(tmp_path / "common.py", "far = 1\n")
    unused = put(tmp_path / "labels" / "_unused.py", "x = 1\n")

    def digest() -> str:
        with registry.using(str(tmp_path)):
            assert registry.load("labels", "halved").far == int(far.read_text()[-2])
            return sources.digest("labels", "halved")

    digests = [digest()]
    edit(unused, "1", "2")
    edit(halved, "on the true class,", "elsewhere,")  # a comment
    assert digest() == digests[0]
    for path, old in ((near, "near = 1"), (far, "far = 1")):
        edit(path, old, f"{old[:-1]}2")
        digests.append(digest())
    assert len(set(digests)) == 3


# --- checks ---


@pytest.mark.parametrize("shelf", SHELVES)
def test_a_new_part_keeps_every_promise_and_passes_its_test(cli, tmp_path, shelf):
    record = cli("parts", "new", shelf, "my-own", tmp_path).record
    part, test = Path(record["path"]), Path(record["test"])
    assert (part.name, record["origin"]) == ("my_own.py", "folder")
    checked = cli("parts", "check", tmp_path)
    assert checked.code == 0, checked.out
    assert (checked.record["passed"], checked.record["failures"]) == (True, [])
    before = part.read_bytes(), test.read_bytes()
    assert "is there already" in error(cli("parts", "new", shelf, "my-own", tmp_path), 4)
    assert (part.read_bytes(), test.read_bytes()) == before


@pytest.mark.slow
@pytest.mark.parametrize("shelf", SHELVES)
def test_the_golden_test_of_a_new_part_passes(cli, tmp_path, shelf):
    record = cli("parts", "new", shelf, "my-own", tmp_path).record
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", record["test"]],
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


@pytest.mark.parametrize(
    ("shelf", "old", "new", "problem"),
    [
        ("labels", "true_share * onehot +", "2 * onehot +", "a row sums to"),
        ("labels", "return true_share", "batch.x.zero_()\n    return true_share", "it changes"),
        ("objectives", "return cross_entropy(logits, given.targets)",
         "return cross_entropy(logits, given.targets) + logits.mean()", "on another example"),
        ("objectives", "return cross_entropy(logits, given.targets)",
         "return cross_entropy(logits, given.targets).mean()", "inner losses have shape ()"),
        ("models", "2 * filters, classes", "2 * filters, classes + 1", "(2, 6), not (2, 5)"),
        ("attacks", "return threat.project(step, x)", "return (x + 9 * (step - x))", "it leaves"),
        ("data", "generator=draw, ", "", "loaded twice it is not the same"),
        ("analyses", '("condition", "confidence")', '("condition", "condition")',
         "two columns have one name"),
    ],
)  # fmt: skip
def test_a_broken_promise_is_told_and_is_exit_8(cli, tmp_path, shelf, old, new, problem):
    part = Path(cli("parts", "new", shelf, "my-own", tmp_path).record["path"])
    edit(part, old, new)
    outcome = cli("parts", "check", tmp_path)
    assert f"{shelf}/my-own" in error(outcome, 8)
    assert outcome.record["passed"] is False
    assert any(problem in one["problem"] for one in outcome.record["failures"]), outcome.out


# --- the way of a run ---


def test_the_way_of_a_run_with_parts_of_a_folder(cli, folder, tmp_path, monkeypatch):
    """Trained, attacked; refused without the folder, and with another source."""
    monkeypatch.chdir(tmp_path)
    run = ["train", *TINY, "--epochs", "1", "--labels", "halved", "--arch", "my-net", "-o", "run"]
    run = [word for word in run if word not in ("--width", "8")]
    parts = ["--parts", folder]
    trained = cli(*run, *parts)
    assert trained.code == 0, trained.err
    (described,) = [r["description"] for r in cli("inspect", "run/best.safetensors").records]
    mine = {
        name: digest for name, digest in described["parts"].items() if "my" in name or "ha" in name
    }
    assert mine.keys() == {"labels/halved", "models/my-net"}
    assert str(tmp_path) not in json.dumps(described)
    assert "already done" in cli(*run, *parts).err

    attack = ["attack", "run/best.safetensors", "--attack", "fgsm", "--limit", "20"]
    line = error(cli(*attack), 2)
    assert "it needs the part models/my-net (" + mine["models/my-net"][:19] + ")" in line
    assert "--parts" in line
    assert cli(*attack, *parts, "-q").code == 0
    assert "it needs the part labels/halved" in error(cli("train", "--resume", "-o", "run"), 2)

    edit(folder / "labels" / "halved.py", "(1 - true_share)", "(1.0 - true_share)")
    assert "labels/halved was edited" in error(cli(*run, *parts), 4)
    assert cli(*attack, *parts, "-q").code == 0  # which needs no labels
    edit(folder / "models" / "my_net.py", ".relu()).relu()", ".relu()).tanh()")
    line = error(cli(*attack, *parts), 4)
    assert "another models/my-net" in line
    assert str(folder / "models" / "my_net.py") in line


@pytest.mark.parametrize(
    ("shelf", "old", "new", "words"),
    [
        ("labels", "true_share * onehot +", "onehot +",
         "label source 'my-own', epoch 1, step 1: row"),
        ("objectives", "return cross_entropy(logits, given.targets)",
         "return cross_entropy(logits, given.targets).mean()",
         "objective 'my-own', epoch 1, step 1: inner losses of shape (), not (32,)"),
        ("objectives", "return loss, {", "return loss.repeat(2), {", "a loss of shape (2,)"),
        ("objectives", '"clean": clean.detach()', '"clean": clean.detach()[0]',
         "clean logits of shape (10,), not (32, 10)"),
        ("models", "2 * filters, classes", "2 * filters, classes + 1",
         "architecture 'my-own': its answer to 32 images of 10 classes is (32, 11)"),
        ("models", "return self.linear(features.mean((2, 3)))",
         "return [self.linear(features.mean((2, 3)))]", "of 10 classes is list, not (32, 10)"),
    ],
)  # fmt: skip
def test_a_breach_at_run_time_is_exit_5_and_names_the_part(
    cli, tmp_path, monkeypatch, shelf, old, new, words
):
    monkeypatch.chdir(tmp_path)
    edit(Path(cli("parts", "new", shelf, "my-own", "mine").record["path"]), old, new)
    chosen = {"labels": "--labels", "objectives": "--objective", "models": "--arch"}[shelf]
    line = [word for word in TINY if shelf != "models" or word not in ("--width", "8")]
    outcome = cli("train", *line, chosen, "my-own", "--parts", "mine", "-o", "run", "-q")
    assert words in error(outcome, 5)
