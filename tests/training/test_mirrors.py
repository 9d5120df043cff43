"""`--log`: other forms of the metrics, resumed as one curve, and failures that cost no training."""

import csv
import json
import os
from importlib.util import find_spec

import pytest

from advkit.errors import Stopped, UsageError
from advkit.runtime.reporting import Reporter
from advkit.training import mirrors
from advkit.training.mirrors import Mirrors
from advkit.training.run import train
from advkit.training.run_folder import RunFolder
from tests.training.test_run import CPU, resolved, stop_at

ROWS = [{"epoch": 1, "n": 32, "loss": 2.0, "seconds": 1.0},
        {"epoch": 2, "n": 32, "loss": 1.0, "masking_alarm": True, "seconds": 1.0}]  # fmt: skip


class Listening(Reporter):
    def __init__(self):
        self.warned = []

    def warn(self, text):
        self.warned.append(text)


def go(path, *loggers, resume=False, **more):
    return train(
        resolved(**more), RunFolder(path), device=CPU, threads=1, resume=resume, loggers=loggers
    )


def stopped(monkeypatch, path, *loggers):
    """Stop a run in its second epoch: an epoch has three steps, a batch of validation, an end."""
    with monkeypatch.context() as patch:
        stop_at(patch, 6)
        with pytest.raises(Stopped):
            go(path, *loggers)


def metrics(path):
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def sheet(path):
    with (path / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_names(monkeypatch):
    assert mirrors.names("csv") == ("csv",)
    assert mirrors.names(None) == ()
    with pytest.raises(UsageError, match="xls"):
        mirrors.names("csv,xls")
    monkeypatch.setattr(mirrors, "find_spec", lambda name: None)
    for name in ("tensorboard", "wandb"):
        with pytest.raises(UsageError, match=rf"pip install {name}"):
            mirrors.names(f"csv,{name}")


def test_a_missing_package_is_a_line_before_any_work(cli, tmp_path, monkeypatch):
    monkeypatch.setattr(mirrors, "find_spec", lambda name: None)
    out = tmp_path / "a"
    done = cli("train", "--data", "digits", "--method", "natural", "--log", "wandb", "-o", out)
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert "pip install wandb" in done.err
    assert not out.exists()


def test_csv_holds_what_the_metrics_hold(tmp_path):
    run = RunFolder(tmp_path)
    for row in ROWS[:1]:
        run.add_line(json.dumps(row))
    mirror = Mirrors(["csv"], run)
    assert sheet(tmp_path) == [{"epoch": "1", "n": "32", "loss": "2.0", "seconds": "1.0"}]
    mirror.add(ROWS[1])
    mirror.close()
    # The alarm's column came late.
    assert [row["masking_alarm"] for row in sheet(tmp_path)] == ["", "True"]
    assert [row["loss"] for row in sheet(tmp_path)] == ["2.0", "1.0"]


def test_a_stopped_run_goes_on_as_one_curve(tmp_path, monkeypatch):
    stopped(monkeypatch, tmp_path / "a", "csv")
    assert [row["epoch"] for row in sheet(tmp_path / "a")] == ["1"]
    assert go(tmp_path / "a", "csv", resume=True)
    rows = sheet(tmp_path / "a")
    assert [int(row["epoch"]) for row in rows] == [1, 2]
    assert [float(row["loss"]) for row in rows] == [row["loss"] for row in metrics(tmp_path / "a")]


def test_a_finished_run_is_written_in_a_form_asked_for_later(tmp_path):
    assert go(tmp_path / "a", epochs=2)
    assert not go(tmp_path / "a", "csv", epochs=2)
    assert [float(row["loss"]) for row in sheet(tmp_path / "a")] == [
        row["loss"] for row in metrics(tmp_path / "a")
    ]


def test_a_mirror_changes_no_byte_of_the_run(tmp_path):
    for name, loggers in (("a", ["csv"]), ("b", [])):
        go(tmp_path / name, *loggers, epochs=1)
    files = [(tmp_path / name / "final.safetensors").read_bytes() for name in "ab"]
    assert files[0] == files[1]


@pytest.mark.parametrize("when", ["__init__", "begin", "add", "close"])
def test_a_mirror_that_fails_is_left_out_with_a_line(tmp_path, monkeypatch, when):
    def broken(*_):
        raise RuntimeError("the server\nis gone")

    monkeypatch.setattr(mirrors.Csv, when, broken)
    run, reporter = RunFolder(tmp_path), Listening()
    run.add_line(json.dumps(ROWS[0]))
    mirror = Mirrors(["csv"], run, {}, reporter)
    mirror.add(ROWS[1])
    mirror.add(ROWS[1])
    mirror.close()
    (line,) = reporter.warned
    assert "--log csv failed and is left out" in line
    assert "the server" in line
    assert "\n" not in line


def test_training_goes_on_without_a_broken_mirror(tmp_path, monkeypatch):
    def full(*_):
        raise OSError("no space")

    monkeypatch.setattr(mirrors.Csv, "add", full)
    assert go(tmp_path / "a", "csv", epochs=1)
    assert len(metrics(tmp_path / "a")) == 1


def test_overwriting_a_run_removes_its_mirrors(tmp_path):
    run = RunFolder(tmp_path / "a")
    go(run.path, "csv", epochs=1)
    (run.path / "tensorboard").mkdir()
    run.begin(resolved(epochs=1), overwrite=True)
    assert not (run.path / "metrics.csv").exists()
    assert not (run.path / "tensorboard").exists()


# --- through the official packages, where they are installed ---

tensorboard = pytest.mark.skipif(
    find_spec("tensorboard") is None, reason="tensorboard is not installed"
)
wandb = pytest.mark.skipif(find_spec("wandb") is None, reason="wandb is not installed")


@tensorboard
@pytest.mark.filterwarnings("ignore")
def test_tensorboards_own_reader_sees_one_curve_of_a_stopped_run(tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    path = tmp_path / "a"
    stopped(monkeypatch, path, "tensorboard")
    assert go(path, "tensorboard", resume=True)
    assert len(list((path / "tensorboard").iterdir())) == 2
    reader = EventAccumulator(str(path / "tensorboard"))
    reader.Reload()
    rows = metrics(path)
    assert set(reader.Tags()["scalars"]) == rows[0].keys() - {"epoch"}
    for name in reader.Tags()["scalars"]:
        events = reader.Scalars(name)
        assert [event.step for event in events] == [1, 2]
        assert [event.value for event in events] == pytest.approx([row[name] for row in rows])
        assert events[0].wall_time <= events[1].wall_time


@tensorboard
@pytest.mark.filterwarnings("ignore")
def test_epochs_before_tensorboard_was_asked_for_are_there_too(tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    path = tmp_path / "a"
    stopped(monkeypatch, path)
    go(path, "tensorboard", resume=True)
    reader = EventAccumulator(str(path / "tensorboard"))
    reader.Reload()
    assert [event.step for event in reader.Scalars("loss")] == [1, 2]


@wandb
@pytest.mark.filterwarnings("ignore")
def test_wandb_offline_goes_on_with_the_same_run(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    path = tmp_path / "a"
    stopped(monkeypatch, path, "wandb")
    first = json.loads((path / "wandb.json").read_text())
    assert first["told"] == 1
    assert go(path, "wandb", resume=True)
    assert json.loads((path / "wandb.json").read_text()) == {"id": first["id"], "told": 2}
    runs = [name for name in os.listdir(path / "wandb") if name.startswith("offline-run-")]
    assert runs
    assert all(name.endswith(first["id"]) for name in runs)
