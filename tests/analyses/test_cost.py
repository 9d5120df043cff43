"""What runs cost, from the metrics beside their checkpoints."""

import json
import statistics

import pytest

from advkit.analyses import cost
from advkit.analyses.gathering.trained import Trained
from advkit.errors import InputError


def run_of(top, name="a", seconds=(9.0, 2.0, 4.0), n=100, role="best", **more):
    """A run's metrics on disk and its checkpoint's description."""
    folder = top / name
    folder.mkdir(exist_ok=True)
    rows = [{"epoch": k + 1, "n": n, "seconds": each} for k, each in enumerate(seconds)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    info = {
        "kind": "checkpoint", "role": role, "seed": 3, "method": "adr", "arch": "small-cnn",
        "data": {"name": "digits"}, "config": {"epochs": 3}, "metrics": {"epoch": 1},
        "environment": {"device": "cpu", "threads": 2}, **more,
    }  # fmt: skip
    return Trained(str(folder / f"{role}.safetensors"), info)


def rows(*inputs):
    result = cost.analyze(inputs)
    return [dict(zip(result.columns, row, strict=True)) for row in result.rows]


def test_figures(tmp_path):
    (row,) = rows(run_of(tmp_path))
    assert row == pytest.approx(
        {
            "run": "a", "data": "digits", "arch": "small-cnn", "method": "adr", "seed": 3,
            "device": "cpu", "threads": 2, "epochs": 3, "planned_epochs": 3, "n": 100,
            "seconds_per_epoch": 3.0, "images_per_second": 100 / 3, "hours": 15 / 3600,
            "ratio": 1.0, "differs": "",
        }
    )  # fmt: skip
    assert cost.COMPARES


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [([7.0], 7.0), ([9.0, 2.0], 5.5), ([9.0, 2.0, 4.0], 3.0), ([1.0, 50.0, 6.0, 5.0], 6.0)],
)
def test_the_first_epoch_is_left_out_where_there_are_three(tmp_path, seconds, expected):
    (row,) = rows(run_of(tmp_path, seconds=seconds))
    assert row["seconds_per_epoch"] == expected
    if len(seconds) >= 3:
        assert expected == statistics.median(seconds[1:])
    assert row["hours"] == pytest.approx(sum(seconds) / 3600)


def test_an_epoch_that_was_gone_on_with_is_no_typical_one(tmp_path):
    run = run_of(tmp_path, seconds=[4.0, 1.0, 4.0])
    lines = [{"epoch": k, "n": 100, "seconds": s, "images_per_second": rate}
             for k, s, rate in ((1, 4.0, 25.0), (2, 1.0, 25.0), (3, 4.0, 25.0))]  # fmt: skip
    run.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (row,) = rows(run)
    assert row["seconds_per_epoch"] == 4.0
    assert row["hours"] == pytest.approx(9 / 3600)


def test_the_ratio_is_to_the_first_input(tmp_path):
    inputs = [run_of(tmp_path, name, [s] * 3) for name, s in (("b", 4.0), ("a", 2.0), ("c", 6.0))]
    assert [(row["run"], row["ratio"]) for row in rows(*inputs)] == [
        ("b", 1.0), ("a", 0.5), ("c", 1.5),
    ]  # fmt: skip
    assert cost.analyze(inputs).numbers == {"runs": 3}


def test_checkpoints_of_one_run_count_once(tmp_path):
    first, other, again = (
        run_of(tmp_path, name, role=role)
        for name, role in (("a", "best"), ("b", "best"), ("a", "final"))
    )
    assert [row["run"] for row in rows(first, other, again)] == ["a", "b"]


def test_text(tmp_path):
    whole = run_of(tmp_path, "a")
    gpu = {"device": "cuda", "threads": 16}
    partial = run_of(tmp_path, "b", [4.5, 4.5], environment=gpu, method="at")
    head, first, second, note = cost.analyze([whole, partial]).text.splitlines()
    assert note == "note: not the same in all runs: device, threads"
    assert head.split()[:6] == ["data", "arch", "method", "run", "device", "epochs"]
    words = " ".join(first.split()), " ".join(second.split())
    assert words[0] == "digits small-cnn adr a cpu × 2 3 3 33.33 0.00417 1.00"
    assert words[1] == "digits small-cnn at b cuda 2 of 3 4.5 22.22 0.0025 1.50"
    assert head.index("images/s") == first.index("33.33") == second.index("22.22")


def refused(run, words):
    with pytest.raises(InputError, match=words):
        cost.analyze([run])


def test_no_metrics(tmp_path):
    run = run_of(tmp_path)
    (tmp_path / "a" / "metrics.jsonl").write_text("")
    refused(run, r"best.safetensors: no metrics.jsonl")
    (tmp_path / "a" / "metrics.jsonl").unlink()
    refused(run, r"best.safetensors: no metrics.jsonl")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "corrupt"),
        ("[1]", "in line 1 there is no object"),
        ("{}", "epoch is missing"),
        ('{"epoch": 1, "n": 10}', "seconds is missing"),
        ('{"epoch": 1, "n": 10, "seconds": "long"}', "seconds is no number"),
        ('{"epoch": 1, "n": 10, "seconds": null}', "seconds is no number"),
        ('{"epoch": 1, "n": 10, "seconds": 0}', "no time or no images"),
        ('{"epoch": 1, "n": 0, "seconds": 1.5}', "no time or no images"),
        ('{"epoch": 1, "n": 10, "seconds": NaN}', "seconds is no number"),
        ('{"epoch": 1, "n": 10, "seconds": Infinity}', "seconds is no number"),
        ('{"epoch": 2, "n": 10, "seconds": 1}', "epoch is 2"),
    ],
)
def test_metrics_of_no_run(tmp_path, text, words):
    run = run_of(tmp_path)
    (tmp_path / "a" / "metrics.jsonl").write_text(text + "\n")
    refused(run, rf"metrics\.jsonl: .*{words}")


def test_metrics_of_another_run(tmp_path):
    refused(run_of(tmp_path, metrics={"epoch": 7}), "3 epochs, but best.safetensors is of epoch 7")


@pytest.mark.parametrize(("figure", "same"), [(0.5, True), (0.25, False)])
def test_metrics_with_other_figures_than_the_checkpoint(tmp_path, figure, same):
    run = run_of(tmp_path, metrics={"epoch": 1, "n": 10, "clean_accuracy": 0.5})
    text = json.dumps({"epoch": 1, "n": 10, "seconds": 1, "val_clean_accuracy": figure})
    (tmp_path / "a" / "metrics.jsonl").write_text(text + "\n")
    if same:
        assert rows(run)[0]["epochs"] == 1
    else:
        refused(run, "other figures than best.safetensors has of epoch 1")
