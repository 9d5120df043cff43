"""The exit-code table: each failure has its number, one line on stderr, and an empty stdout."""

import fcntl
import os
import pickle
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from advkit.artifacts import checkpoint
from tests.conftest import TINY, Outcome, shell

FGSM = ["--attack", "fgsm", "--limit", "20"]
BEST = "run/best.safetensors"
ADR = ["train", "--method", "adr", *TINY]


@pytest.fixture(autouse=True)
def place(tiny_run, tiny_logits, tmp_path, monkeypatch):
    """Work in a folder of its own with the tiny run, its logits, and a plain file."""
    shutil.copytree(tiny_run, tmp_path / "run")
    shutil.copy(tiny_logits, tmp_path / "a.h5")
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(outcome: Outcome, code: int, *words: str) -> None:
    assert (outcome.code, outcome.out) == (code, ""), outcome.err
    (line,) = outcome.err.splitlines()
    assert line.startswith("advkit")
    assert not [word for word in words if word not in line], line


def changed(name: str, change) -> str:
    """Write a copy of the tiny checkpoint with changed tensors and a right digest."""
    tensors, info = checkpoint.read(BEST)
    change(tensors)
    path = Path(f"run/{name}.safetensors")
    checkpoint.write(path, tensors, info)
    return str(path)


USAGE = {
    "attac": ["attack"],
    "train --method adrr --data digits": ["adrr", "'adr'"],
    "train --data digit": ["digit", "'digits'", "cifar10"],
    "train --data digits --arch smallcnn": ["smallcnn", "'small-cnn'"],
    "train --data digits --epoch 3": ["--epoch", "--epochs"],
    "train --data digits --objective trade": ["trade", "'trades'"],
    "train --data digits --labels onehots": ["onehots", "'onehot'"],
    "train --data digits --preset papers": ["papers", "paper"],
    "train --data digits --lr-schedule cosin": ["cosin", "cosine"],
    "train --data digits --emit bets": ["bets", "best"],
    "train": ["--data", "digits"],
    "train --data cifar10": ["cifar10", "--data-root"],
    "train --data digits --awp-form adr": ["--awp-form", "without --awp"],
    "train --data digits --awp-warmup 3": ["--awp-warmup", "without --awp"],
    "train --data digits --extra-fraction 0.5": ["--extra-fraction", "without --extra-data"],
    "train --data digits --lr-schedule cosine --lr-drops 3": ["--lr-drops", "cosine"],
    "train --data imagenet:. --image-list list.txt": ["--image-list", "advkit attack"],
    "train --data digits --norm l2": ["give --eps too"],
    "train --data digits --eps 8": ["8/255"],
    "train --data digits --eps eight": ["eight", "8/255"],
    "train --data digits --eps -1": ["-1"],
    "train --data digits --epochs 0": ["--epochs"],
    "train --data digits --epochs many": ["--epochs", "whole number"],
    "train --data digits --limit 0": ["--limit"],
    "train --data digits --lr 0": ["--lr"],
    "train --data digits --width 0": ["width"],
    "train --data digits --step-size eps/0": ["step"],
    "train --data digits --step-size -1": ["step"],
    "train --data digits --threads 0": ["--threads"],
    "train --data digits --device tpu": ["tpu", "cuda"],
    "train --data digits --tau 2:1": ["tau", "no meaning"],
    "train --data digits --beta 6": ["beta", "no meaning"],
    "train --data digits --method adr --tau warm": ["warm"],
    "train --data digits --method adr --ema-decay 2": ["ema-decay"],
    f"attack {BEST}": ["--autoattack", "--attack"],
    f"attack {BEST} --autoattack --attack pgd": ["--autoattack", "--attack"],
    f"attack {BEST} --attack pgdd": ["pgdd", "'pgd'"],
    f"attack {BEST} --attack fgsm --steps 4": ["--steps", "fgsm"],
    f"attack {BEST} --attack pgd --version plus": ["--version"],
    f"attack {BEST} --attack none --fail-under 0.5": ["--fail-under"],
    f"attack {BEST} --attack none --eps 8/255": ["--eps"],
    f"attack {BEST} --attack none --save-images": ["--save-images"],
    f"attack {BEST} --attack pgd --restarts 0": ["--restarts"],
    f"attack {BEST} --attack pgd --steps -3": ["--steps"],
    f"attack {BEST} --attack pgd --step-size long": ["long"],
    f"attack {BEST} --attack pgd --eps 8": ["8/255"],
    f"attack {BEST} --attack pgd --norm l3": ["l3", "linf"],
    f"attack {BEST} --attack pgd --data digitz": ["digitz", "'digits'"],
    f"attack {BEST} --attack pgd --batch-size 0": ["--batch-size"],
    f"attack {BEST} --attack pgd --limit 0": ["--limit"],
    f"attack {BEST} --attack pgd -o a.hdf": ["a.hdf", ".h5"],
    "analyze calibratio a.h5": ["calibratio", "calibration"],
    "analyze calibration a.h5 --bins 0": ["--bins"],
    "analyze calibration a.h5 -o a.xls": ["a.xls", ".json"],
    "analyze cost a.h5 --plot a.png": ["--plot"],
    "analyze calibration a.h5 -o a.html": ["a.html", ".json"],
    "analyze table a.h5 -o a.xls": ["a.xls", ".csv", ".html"],
    "analyze table a.h5 --against adr-tabel1": ["adr-tabel1", "'adr-table1'"],
    "analyze table a.h5 --against adr-table6": ["analyze cost --against adr-table6"],
    "analyze table a.h5 --spread se": ["--spread", "se"],
    "analyze calibration a.h5 --plot a.bmp": ["a.bmp", ".png"],
    "data info digitz": ["digitz", "'digits'"],
}


@pytest.mark.parametrize("line", USAGE)
def test_2_wrong_usage(cli, line):
    stage, *rest = line.split()
    trial = ["--limit", "100", "--epochs", "1"] if stage == "train" else []
    refused(cli(stage, *trial, *rest), 2, *USAGE[line])


@pytest.mark.parametrize("line", ["", "analyze", "data"])
def test_2_naming_no_command_leaves_stdout_empty(cli, line):
    outcome = cli(*line.split())
    assert (outcome.code, outcome.out) == (2, "")
    assert "name a command" in outcome.err


@pytest.mark.parametrize(
    "text", ["learning_rate = 0.1", "lr = true", "epochs = 1.5", "method = 'adrr'"]
)
def test_2_wrong_configuration_file(cli, place, text):
    (place / "a.toml").write_text(f"data = 'digits'\n{text}\n")
    refused(cli("train", "--config", "a.toml"), 2, text.split(" = ")[1 if "adrr" in text else 0])


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "mps"])
def test_2_no_such_device(cli, monkeypatch, device):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    refused(cli(*ADR, "--device", device, "-o", "new"), 2, device)
    refused(cli("attack", BEST, *FGSM, "--device", device), 2, device)
    assert not os.path.exists("new")


@pytest.mark.parametrize(
    "wrong", [["--tau", "warm"], ["--ema-decay", "2"], ["--batch-size", "999"]]
)
def test_2_a_refused_run_leaves_its_folder_usable(cli, wrong):
    assert cli(*ADR, *wrong, "-o", "new").code == 2
    assert cli(*ADR, "--epochs", "1", "--attack-steps", "1", "-o", "new").code == 0


def test_print_config_needs_no_data(cli):
    outcome = cli("train", "--method", "adr", "--data", "cifar10", "--print-config")
    assert (outcome.code, outcome.err) == (0, "")
    assert 'method = "adr"  # flag\n' in outcome.out


def test_print_config_reads_back(cli, place):
    first = cli("train", *TINY, "--method", "trades-adr", "--beta", "5", "--print-config").out
    (place / "a.toml").write_text(first)
    again = cli("train", "--config", "a.toml", "--print-config").out
    values = [[row.partition("#")[0] for row in text.splitlines()] for text in (first, again)]
    assert values[0] == values[1]
    assert "beta = 5.0  " in values[0]


@pytest.mark.parametrize("stdin", ["", "\n \n"])
@pytest.mark.parametrize(
    ("words", "wanted"),
    [("attack --attack fgsm", "checkpoint"), ("analyze table", "logits"), ("inspect", "artifact"),
     ("attack - --attack fgsm", "checkpoint"), ("analyze entropy", "logits")],
)  # fmt: skip
def test_3_empty_stdin(cli, words, wanted, stdin):
    refused(cli(*words.split(), stdin=stdin), 3, f"no {wanted} on stdin")


@pytest.mark.parametrize(
    ("stdin", "word"),
    [
        ("none.safetensors\n", "none.safetensors"),
        ("Segmentation fault\n", "Segmentation fault"),
        ("{broken\n", "{broken"),
        ('{"kind": "checkpoint"}\n', "checkpoint"),
        ('{"path": 3}\n', "path"),
        ('{"path": ' + "[" * 100_000 + "\n", "path"),
        (b"\x00\x01\xff\n", "x01"),
        (b"\x1b[31m\rgarbage\n", "garbage"),
        (b"x" * 5000 + b"\n", "xxx"),
    ],
    ids=["missing", "words", "broken", "pathless", "number", "deep", "binary", "escapes", "long"],
)
@pytest.mark.parametrize("words", ["attack --attack fgsm", "inspect", "analyze entropy"])
def test_3_garbage_on_stdin(cli, words, stdin, word):
    outcome = cli(*words.split(), stdin=stdin)
    refused(outcome, 3, word)
    assert outcome.err.rstrip("\n").isprintable()


@pytest.mark.parametrize(
    ("words", "got", "wanted"),
    [
        ("attack a.h5 --attack fgsm", "HDF5", "checkpoint"),
        ("analyze calibration run/best.safetensors", "checkpoint", "logits"),
        ("analyze table run/best.safetensors", "checkpoint", "logits"),
    ],
)
def test_3_wrong_file_names_what_it_got_and_what_it_wants(cli, words, got, wanted):
    refused(cli(*words.split()), 3, words.split()[1 if "attack" in words else 2], got, wanted)


@pytest.mark.parametrize(
    ("words", "kind", "wanted"),
    [("attack --attack fgsm", "logits", "checkpoint"), ("analyze table", "checkpoint", "logits"),
     ("analyze entropy", "analysis", "logits"), ("attack --attack fgsm", "poem", "checkpoint")],
)  # fmt: skip
def test_3_wrong_record_names_what_it_got_and_what_it_wants(cli, words, kind, wanted):
    stdin = f'{{"kind": "{kind}", "path": "a.h5"}}\n'
    refused(cli(*words.split(), stdin=stdin), 3, kind, f"wanted: {wanted}")


@pytest.mark.parametrize(
    "line",
    [f"attack none.safetensors {' '.join(FGSM)}", "analyze entropy none.h5", "inspect none.h5",
     "analyze table a.h5 none.h5", "train --config none.toml", "train --data folder:none"],
)  # fmt: skip
def test_3_missing_file(cli, line):
    refused(cli(*line.split()), 3, "none")


@pytest.mark.parametrize("kept", [0, 1, 7, 8, 100, -1])
@pytest.mark.parametrize(
    ("name", "words"), [(BEST, "attack --attack fgsm"), ("a.h5", "analyze entropy")]
)
def test_3_truncated_file(cli, place, name, words, kept):
    content = (place / name).read_bytes()
    (place / name).write_bytes(content[:kept])
    refused(cli(*words.split(), name), 3, name)
    refused(cli("inspect", name), 3, name)


def test_3_changed_content_does_not_match_its_digest(cli, place):
    content = bytearray((place / BEST).read_bytes())
    content[-3] ^= 1
    (place / BEST).write_bytes(content)
    refused(cli("attack", BEST, *FGSM), 3, BEST, "corrupt")


class Payload:
    def __reduce__(self):
        return os.system, ("touch executed",)


@pytest.mark.parametrize("protocol", range(6))
def test_3_a_pickle_is_never_executed(cli, place, protocol):
    (place / "x.safetensors").write_bytes(pickle.dumps(Payload(), protocol))
    refused(cli("attack", "x.safetensors", *FGSM), 3, "x.safetensors")
    refused(cli("inspect", "x.safetensors"), 3, "x.safetensors")
    assert not (place / "executed").exists()


def test_3_a_torch_archive_is_never_unpickled(cli, place):
    torch.save({"payload": Payload()}, place / "x.safetensors")
    refused(cli("attack", "x.safetensors", *FGSM), 3, "x.safetensors", "unpickle")
    assert not (place / "executed").exists()


@pytest.mark.parametrize("text", ["{}", '{"advkit": {}}', '{"advkit": 5}', "[]", "{"])
def test_3_foreign_json(cli, place, text):
    (place / "x.json").write_text(text)
    refused(cli("inspect", "x.json"), 3, "x.json")


def test_4_other_options_on_the_same_run(cli):
    before = checkpoint.read_info(BEST)["digest"]
    refused(cli(*ADR, "--lr", "0.2", "-o", "run"), 4, "lr: 0.1 -> 0.2", "--overwrite")
    refused(cli(*ADR, "--lr", "0.2", "--resume", "-o", "run"), 4, "lr: 0.1 -> 0.2")
    assert checkpoint.read_info(BEST)["digest"] == before


def test_4_other_options_on_the_same_logits(cli):
    assert cli("attack", BEST, *FGSM, "-o", "b.h5").code == 0
    refused(cli("attack", BEST, *FGSM, "--eps", "0.05", "-o", "b.h5"), 4, "eps", "--overwrite")


def test_4_other_analysis_on_the_same_output(cli):
    assert cli("analyze", "calibration", "--resamples", 20, "a.h5", "-o", "x.json").code == 0
    refused(cli("analyze", "entropy", "a.h5", "-o", "x.json"), 4, "x.json")


def test_4_partial_run_without_resume(cli, place):
    (place / "run" / "final.safetensors").unlink()
    refused(cli(*ADR, "-o", "run"), 4, "--resume")


def test_4_folder_that_is_no_run(cli, place):
    (place / "other").mkdir()
    (place / "other" / "thesis.tex").touch()
    refused(cli(*ADR, "--overwrite", "-o", "other"), 4, "not a run")
    assert (place / "other" / "thesis.tex").exists()


def test_the_working_directory_may_be_the_run(cli, place, monkeypatch):
    monkeypatch.chdir(place / "run")
    assert cli(*ADR, "-o", ".").record["path"] == "best.safetensors"


def _lose(tensors):
    tensors.popitem()


def _gain(tensors):
    tensors["extra.weight"] = torch.zeros(2)


def _reshape(tensors):
    name = max(tensors, key=lambda each: tensors[each].numel())
    tensors[name] = tensors[name].flatten()


def _retype(tensors):
    name = max(tensors, key=lambda each: tensors[each].numel())
    tensors[name] = tensors[name].double()


@pytest.mark.parametrize(
    ("change", "words"),
    [(_lose, ["missing"]), (_gain, ["extra.weight"]), (_reshape, ["not"]),
     (_retype, ["float64", "float32"])],
)  # fmt: skip
def test_4_tensors_that_do_not_fit(cli, change, words):
    path = changed("odd", change)
    refused(cli("attack", path, *FGSM), 4, path, *words)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_5_weights_that_are_not_finite(cli, value):
    def spoil(tensors):
        tensors[spoiled].view(-1)[0] = value

    spoiled = next(name for name in checkpoint.read(BEST)[0] if name.endswith("weight"))
    path = changed("nan", spoil)
    refused(cli("attack", path, *FGSM), 5, path, spoiled)
    assert not [name for name in os.listdir("run") if name.endswith(".h5")]


def test_5_divergence(cli):
    outcome = cli(*ADR, "--lr", "1e30", "-q", "-o", "wild")
    refused(outcome, 5, "epoch 1", "--lr")


@pytest.mark.parametrize(
    "words",
    [[*ADR, "-o", "file"], [*ADR, "-o", "file/x"], [*ADR, "-o", "file/x/y"],
     ["attack", BEST, *FGSM, "-o", "file/x.h5"],
     ["analyze", "table", "a.h5", "-o", "file/x.json"],
     ["analyze", "entropy", "a.h5", "--plot", "file/x.png"]],
)  # fmt: skip
def test_6_a_file_in_the_folders_place(cli, place, words):
    refused(cli(*words), 6, "file")
    assert (place / "file").read_text() == "not a folder"


def test_6_a_folder_in_the_files_place(cli, place):
    (place / "x.h5").mkdir()
    refused(cli("attack", BEST, *FGSM, "-o", "x.h5"), 6, "x.h5")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_6_read_only_folder(cli, place):
    (place / "run").chmod(0o555)
    refused(cli("attack", BEST, *FGSM), 6, "run")


@pytest.mark.parametrize("words", ["presets", "--help", "train --data digits --print-config"])
def test_6_full_disk_behind_stdout(place, words):
    outcome = shell(f"advkit {words} > /dev/full", place)
    refused(outcome, 6, "stdout", "no space")


@pytest.mark.parametrize(
    ("output", "words"),
    [("new", ADR), ("run", [*ADR, "--overwrite"]), ("b.h5", ["attack", BEST, *FGSM])],
)
def test_7_busy(cli, place, output, words):
    before = sorted(os.listdir("run"))
    path = place / f".{output}.lock" if output.endswith(".h5") else place / output / ".lock"
    path.parent.mkdir(exist_ok=True)
    with path.open("w") as lock:
        lock.write("pid 4711 on elsewhere")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        refused(cli(*words, "-o", output), 7, output, "pid 4711", "elsewhere")
    assert [name for name in sorted(os.listdir("run")) if name != ".lock"] == before


def test_a_dead_holder_blocks_nobody(cli, place):
    (place / ".b.h5.lock").write_text("pid 4711 on elsewhere")
    assert cli("attack", BEST, *FGSM, "-o", "b.h5").code == 0
    assert not (place / ".b.h5.lock").exists()


def test_8_verdict_comes_with_the_record(cli):
    """A net that gives every image its first class is right about two of twenty."""

    def planted(tensors):
        tensors["linear.weight"].zero_()
        tensors["linear.bias"].copy_(torch.arange(10).flip(0))

    outcome = cli("attack", changed("first", planted), *FGSM, "--fail-under", "0.11", "-q")
    assert outcome.code == 8
    assert outcome.record["kind"] == "logits"
    assert outcome.record["robust_accuracy"] == 0.1
    assert "is under 0.11" in outcome.err


def test_8_the_bound_itself_passes(cli):
    robust = cli("attack", BEST, *FGSM).record["robust_accuracy"]
    assert cli("attack", BEST, *FGSM, "--fail-under", robust).code == 0


@pytest.mark.parametrize(
    "words", [[*ADR, "-o", "run"], [*ADR, "--resume", "-o", "run"],
              ["train", "--resume", "-o", "run"],
              ["attack", BEST, *FGSM, "-o", "run/b.h5"],
              ["analyze", "entropy", "a.h5", "-o", "run/x.json"]],
)  # fmt: skip
def test_0_done_before_gives_the_same_record(cli, place, words):
    first = cli(*words).record
    stamps = {path.name: path.stat().st_mtime_ns for path in (place / "run").iterdir()}
    again = cli(*words)
    assert again.code == 0
    assert "already done" in again.err
    assert {**again.record, "seconds": 0} == {**first, "seconds": 0}
    assert {path.name: path.stat().st_mtime_ns for path in (place / "run").iterdir()} == stamps


def test_0_overwrite_does_it_anew(cli):
    words = ["attack", BEST, *FGSM, "-o", "b.h5"]
    first = cli(*words).record
    again = cli(*words, "--overwrite")
    assert "already done" not in again.err
    assert again.record["digest"] == first["digest"]
    other = cli(*words, "--eps", "0.05", "--overwrite").record
    assert (other["eps"], other["path"]) == (0.05, "b.h5")


def test_0_overwrite_replaces_a_run(cli):
    before = checkpoint.read_info(BEST)["digest"]
    outcome = cli(*ADR, "--lr", "0.05", "--epochs", "1", "--overwrite", "-o", "run")
    assert outcome.code == 0
    assert outcome.record["digest"] != before
    assert checkpoint.read_info(BEST)["config"]["lr"] == 0.05


def test_overwrite_keeps_the_old_run_until_the_inputs_are_there(cli, place):
    assert cli("train", "--data", "folder:none", "--overwrite", "-o", "run").code == 3
    assert (place / BEST).exists()


def test_1_a_bug_is_one_line_and_a_traceback_on_request(cli, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError("oh")

    monkeypatch.setattr("advkit.artifacts.artifact.read_info", broken)
    refused(cli("inspect", BEST), 1, "ZeroDivisionError: oh", "--debug")
    assert "Traceback" in cli("inspect", BEST, "--debug").err


def test_1_out_of_memory_hints_at_the_batch_size(cli, monkeypatch):
    def broken(*_):
        raise MemoryError

    monkeypatch.setattr("advkit.artifacts.artifact.read_info", broken)
    refused(cli("inspect", BEST), 1, "--batch-size")


LATE = """
import os, signal, sys
from advkit.__main__ import main

class Late:
    def __del__(self, kill=os.kill, pid=os.getpid()):
        kill(pid, {number})

late = Late()
sys.argv = ["advkit", "--version"]
sys.exit(main())
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_python_takes_itself_down_changes_nothing(number):
    """Modules go after Python's own signal handlers, and what lives in them with them."""
    ended = subprocess.run(
        [sys.executable, "-c", LATE.format(number=int(number))], capture_output=True, text=True
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("advkit ")
