"""`advkit bench` on the command line."""

import json

import pytest

QUICK = ["bench", "--data", "cifar10", "--arch", "small-cnn", "--width", "4", "--batch-size", "8",
         "--attack-steps", "1", "--steps", "1", "--val-size", "8", "--device", "cpu",
         "--threads", "1"]  # fmt: skip


def test_one_record_and_a_table(cli, tmp_path):
    out = tmp_path / "bench.json"
    done = cli(*QUICK, "--methods", "at,ltd,natural", "--epochs", "4", "--budget", "1h", "-o", out,
               "--temperature", "7")  # fmt: skip
    assert done.code == 0, done.err
    record = done.record
    assert (record["kind"], record["analysis"]) == ("analysis", "bench")
    assert [row["method"] for row in record["rows"]] == ["at", "ltd", "natural"]
    assert all(row["epochs"] == 4 and row["seconds_per_step"] > 0 for row in record["rows"])
    assert record["watts"] is None
    assert "s/epoch" in done.err
    saved = json.loads(out.read_text())
    assert saved["advkit"]["config"]["analysis"] == "bench"
    assert saved["advkit"]["digest"] == record["digest"]
    again = cli(*QUICK, "--methods", "at", "-o", out)
    assert (again.code, again.out) == (4, "")


def test_a_preset_and_a_file_give_the_epochs(cli, tmp_path):
    file = tmp_path / "run.toml"
    file.write_text('method = "trades-adr"\nepochs = 7\nbeta = 5.0\n')
    done = cli(*QUICK, "--methods", "at", "--config", file, "-q")
    assert done.code == 0, done.err
    assert done.record["rows"][0]["epochs"] == 7
    assert done.err == ""


@pytest.mark.parametrize(
    ("more", "what"),
    [
        (["--budget", "4"], "--budget 4"),
        (["--methods", "at,nonsense"], "nonsense"),
        (["--methods", ","], "--methods names none"),
        (["--steps", "0"], "--steps 0"),
        (["--methods", "te", "--augment", "cutmix"], "te keeps a memory"),
        (["--robust-accuracy", "2"], "--robust-accuracy 2"),
        (["--eps", "8"], "8/255"),
        (["--device", "cuda:99"], "no such device"),
    ],
)
def test_wrong_usage_is_one_line(cli, more, what):
    done = cli(*QUICK, *more)
    assert (done.code, done.out) == (2, "")
    assert what in done.err
    assert done.err.count("\n") == 1


def test_data_of_unknown_size_must_be_there(cli, tmp_path):
    done = cli("bench", "--data", f"folder:{tmp_path}", "--arch", "small-cnn")
    assert done.code == 3
