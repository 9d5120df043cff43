"""Learning curves from the metrics of runs: seeds, recipes, the best epoch, and what is refused."""

import json
import statistics

import pytest
from matplotlib.figure import Figure

from advkit.analyses.curves import analyze
from advkit.analyses.gathering.trained import Trained, trained
from advkit.errors import InputError

ROBUST = {0: [0.1, 0.5, 0.5, 0.4], 1: [0.2, 0.3, 0.6, 0.5]}


def run_of(top, seed=0, robust=None, name=None, ema=None, clean=(0.5, 0.6, 0.7, 0.8), **config):
    """A run's metrics on disk and its checkpoint's description; robust () is natural training."""
    robust = ROBUST[seed] if robust is None else robust
    folder = top / (name or f"at-s{seed}")
    folder.mkdir()
    rows = []
    for k, value in enumerate(clean):
        row = {"epoch": k + 1, "n": 9, "lr": 0.1, "loss": 2.0, "val_clean_accuracy": value}
        row["train_clean_accuracy"] = value
        if robust:
            row |= {"val_robust_accuracy": robust[k], "train_robust_accuracy": robust[k] + 0.1}
        if ema:
            row |= {"val_clean_accuracy-ema": value, "val_robust_accuracy-ema": ema[k]}
        rows.append({**row, "seconds": 1.0})
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "metrics.jsonl").write_text(lines)
    figures = {"epoch": 1, "clean_accuracy": clean[0]}
    figures |= {"robust_accuracy": robust[0]} if robust else {}
    method = config.pop("method", "at")
    info = {
        "kind": "checkpoint", "role": "best", "seed": seed, "method": method, "arch": "small-cnn",
        "data": {"name": "digits"}, "metrics": figures,
        "config": {"epochs": 4, "method": method, "seed": seed, "lr": 0.1, **config},
    }  # fmt: skip
    return Trained(str(folder / "best.safetensors"), info)


def test_one_run(tmp_path):
    result = analyze([run_of(tmp_path)])
    # The first of the two best epochs is the one that was kept.
    expected = {"runs": 1, "recipes": 1, "seeds": 1, "epochs": 4, "best_epoch": 2, "best": 0.5}
    assert {key: result.numbers[key] for key in expected} == expected
    assert result.numbers["final"] == 0.4
    assert result.numbers["gap"] == pytest.approx(0.1)
    assert result.numbers["gap_sd"] is None
    rows = [dict(zip(result.columns, row, strict=True)) for row in result.rows]
    assert [row["val_robust"] for row in rows] == ROBUST[0]
    assert [row["best"] for row in rows] == [False, True, False, False]
    assert rows[0]["val_robust_ema"] is rows[0]["best_ema"] is None
    assert result.brief


def test_alarms_are_told(tmp_path):
    quiet = run_of(tmp_path, 0)
    assert "alarm" not in analyze([quiet]).text
    loud = run_of(tmp_path, 1)
    log = tmp_path / "at-s1" / "metrics.jsonl"
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    for row in rows[2:]:
        row["overfitting_alarm"] = True
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = analyze([quiet, loud])
    assert "note: overfitting alarm in at-s1, first in epoch 3" in result.text
    assert result.more["alarms"] == {"at-s1": {"overfitting_alarm": 3}}


def test_seeds_of_one_recipe_are_a_mean_and_a_spread(tmp_path):
    result = analyze([run_of(tmp_path, 1), run_of(tmp_path, 0)])
    (group,) = result.groups
    assert (group["recipe"], group["seeds"]) == ("at", 2)
    assert group["best"] == pytest.approx(0.55)
    assert group["best_sd"] == pytest.approx(statistics.stdev([0.5, 0.6]))
    assert group["best_epoch"] == 2.5
    axes = Figure().subplots()
    result.panels[0](axes)
    curves = [line.get_ydata().tolist() for line in axes.lines]
    assert any(curve == pytest.approx([0.15, 0.4, 0.55, 0.45]) for curve in curves)
    stars = [(*line.get_xdata(), *line.get_ydata()) for line in axes.lines
             if line.get_marker() == "*"]  # fmt: skip
    assert stars == [(2, 0.5), (3, 0.6)]
    band = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert len(axes.collections) == 4
    assert band.max() == pytest.approx(0.8)  # clean accuracy is the same in both: no width


def test_an_average_has_figures_of_its_own(tmp_path):
    (group,) = analyze([run_of(tmp_path, ema=[0.2, 0.3, 0.4, 0.5])]).groups
    assert (group["ema_best_epoch"], group["ema_best"], group["ema_gap"]) == (4, 0.5, 0)
    assert group["best_epoch"] == 2


def test_natural_training_is_judged_by_clean_accuracy(tmp_path):
    result = analyze([run_of(tmp_path, robust=(), clean=(0.5, 0.9, 0.7))])
    assert (result.numbers["best_epoch"], result.numbers["best"]) == (2, 0.9)
    assert "clean" in result.text.splitlines()[1]


def test_recipes_are_told_apart_and_what_differs_is_named(tmp_path):
    runs = [run_of(tmp_path, 0), run_of(tmp_path, 0, name="b", lr=0.2),
            run_of(tmp_path, 1, name="c", method="adr")]  # fmt: skip
    result = analyze(runs)
    assert [group["recipe"] for group in result.groups] == ["at lr=0.1", "at lr=0.2", "adr"]
    assert result.more["differs"] == {"lr": [0.1, 0.2]}
    assert "note: not the same in all recipes: lr 0.1 (at lr=0.1, adr), 0.2 (at lr=0.2)" in (
        result.text
    )
    assert len(result.panels) == 4  # one each, and validation accuracy compared
    more = [run_of(tmp_path, 0, name=f"m{k}", lr=0.3 + k) for k in range(2)]
    assert len(analyze([*runs, *more]).panels) == 3


def test_a_labels_file_for_each_seed_makes_no_other_recipe(tmp_path):
    own = [run_of(tmp_path, seed, labels_digest=f"sha256:{seed}") for seed in (0, 1)]
    assert len(analyze(own).groups) == 1
    other = run_of(tmp_path, 0, name="x", labels_digest="sha256:9")
    assert len(analyze([*own, other]).groups) == 3


def test_checkpoints_of_one_run_count_once(tmp_path):
    run = run_of(tmp_path)
    final = Trained(run.path.replace("best", "final"), run.info)
    assert analyze([run, final]).numbers["runs"] == 1


def test_runs_of_unequal_length(tmp_path):
    """A run that is not done yet: the mean goes on over those that are."""
    short = run_of(tmp_path, 1, robust=[0.3, 0.4], clean=[0.5, 0.6])
    result = analyze([run_of(tmp_path, 0), short])
    assert result.numbers["epochs"] == 4
    axes = Figure().subplots()
    result.panels[0](axes)
    curves = [line.get_ydata().tolist() for line in axes.lines]
    assert any(curve == pytest.approx([0.2, 0.45, 0.5, 0.4]) for curve in curves)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"epoch": 2}, "in line 1 epoch is 2"),
        ({"epoch": 1, "val_robust_accuracy": 9.0}, "line 1"),
        ({"epoch": 1, "val_robust_accuracy": "high"}, "line 1"),
        ({"epoch": 1, "val_clean_accuracy": True}, "other figures"),
        ({"epoch": 1, "loss": float("nan")}, "line 1"),
    ],
)
def test_other_text_in_the_metrics_is_refused(tmp_path, line, message):
    run = run_of(tmp_path)
    run.metrics.write_text(json.dumps({"n": 9, "seconds": 1.0, **line}) + "\n")
    with pytest.raises(InputError, match=message):
        analyze([run])


def test_two_runs_of_one_seed_are_refused(tmp_path):
    with pytest.raises(InputError, match="both are seed 0 of the same recipe"):
        analyze([run_of(tmp_path), run_of(tmp_path, name="again")])


def test_a_run_is_named_by_its_folder(tiny_run, tmp_path, cli):
    assert trained(tiny_run).path == str(tiny_run / "best.safetensors")
    done = cli("analyze", "curves", tiny_run, "--plot", tmp_path / "c.png")
    assert done.code == 0, done.err
    assert "rows" not in done.record
    (tmp_path / "empty").mkdir()
    empty = cli("analyze", "curves", tmp_path / "empty")
    assert empty.code == 3
    assert "no checkpoint of a run lies in this folder" in empty.err


def test_a_log_stands_for_its_run(tmp_path, tiny_run):
    for name in ("metrics.jsonl", "best.safetensors"):
        assert trained(tiny_run / name).info["role"] == "best"
    with pytest.raises(InputError, match=r"nowhere.metrics\.jsonl: no such file"):
        trained(tmp_path / "nowhere" / "metrics.jsonl")
    (tmp_path / "metrics.jsonl").write_text("{}")
    with pytest.raises(InputError, match="no checkpoint of a run lies in this folder"):
        trained(tmp_path / "metrics.jsonl")
