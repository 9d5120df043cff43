"""Out of distribution: entropies against scipy, AUROC against scikit-learn, files by checkpoint."""

import dataclasses

import numpy as np
import pytest
import scipy.stats
import torch
from scipy.special import softmax
from sklearn.metrics import roc_auc_score

from advkit.analyses.ood import analyze
from advkit.artifacts.hdf5 import Logits
from advkit.errors import InputError, MismatchError, UsageError


def logits_of(z, *, model="a", data="own", labels=0, path="x.h5", method="at", role="best"):
    n = len(z)
    info = {
        "method": method, "arch": "net", "role": role, "data": {"name": data},
        "config": {"attack": "none", "data": data, "limit": None, "batch_size": 250, "seed": 0},
        "parents": [{"kind": "checkpoint", "digest": f"sha256:{model * 10}", "seed": 0},
                    {"kind": "data", "digest": f"sha256:{data}"}],
    }  # fmt: skip
    y = torch.full((n,), labels)
    return Logits(torch.arange(n), y, torch.tensor(z).float(), info, path=path)


def draws(seed, n, scale, classes=6):
    return np.random.default_rng(seed).normal(size=(n, classes)) * scale


def inside(model="a", seed=0, n=80, **more):
    return logits_of(draws(seed, n, 3.0), model=model, **more)


def outside(model="a", seed=1, n=50, data="other", **more):
    return logits_of(draws(seed, n, 1.5), model=model, data=data, labels=-1, **more)


def test_one_pair():
    own, other = inside(), outside()
    numbers = analyze([own, other]).numbers
    p, q = (softmax(each.clean.double().numpy(), axis=1) for each in (own, other))
    truth = np.r_[np.zeros(80), np.ones(50)]
    h = [scipy.stats.entropy(each, axis=1) for each in (p, q)]
    doubt = np.concatenate([1 - p.max(1), 1 - q.max(1)])
    expected = {
        "in_entropy": h[0].mean(),
        "out_entropy": h[1].mean(),
        "auroc": roc_auc_score(truth, np.concatenate(h)),
        "confidence_auroc": roc_auc_score(truth, doubt),
        "fpr95": (h[1] <= np.sort(h[0])[75]).mean(),
    }
    assert {key: numbers[key] for key in expected} == pytest.approx(expected, abs=1e-9)
    assert (numbers["in_n"], numbers["out_n"], numbers["pairs"]) == (80, 50, 1)
    for name in ("auroc", "in_entropy", "out_entropy"):
        low, high = numbers[f"{name}_ci95"]
        assert low < numbers[name] < high


def test_models_and_sets_in_any_order():
    files = [
        outside("b", 7, data="far"), inside("a", 2, path="a.h5"), outside("a", 3, data="far"),
        inside("b", 5, path="b.h5", method="adr"), outside("a", 4, data="near"),
    ]  # fmt: skip
    files[0] = dataclasses.replace(files[0], info={**files[0].info, "method": "adr"})
    result = analyze(files)
    assert [(group["model"], group["data"]) for group in result.groups] == [
        ("adr", "far"), ("at", "far"), ("at", "near"),
    ]  # fmt: skip
    alone = analyze([files[1], files[4]]).numbers
    assert {key: value for key, value in alone.items() if key not in ("models", "pairs")} == (
        result.groups[2]
    )
    assert result.numbers == {"models": 2, "pairs": 3}
    assert [list(figure.counts) for figure in result.sketches] == [
        ["in: own", "out: far"], ["in: own", "out: far", "out: near"],
    ]  # fmt: skip
    assert len(result.rows) == 3
    assert len(result.panels) == 2


def test_models_of_one_method_are_told_apart_by_what_differs():
    files = [
        each
        for model, role in (("a", "best"), ("b", "final"))
        for each in (inside(model, role=role), outside(model, role=role))
    ]
    assert [group["model"] for group in analyze(files).groups] == ["at role=best", "at role=final"]
    same = [each for model in "ab" for each in (inside(model), outside(model))]
    assert [group["model"] for group in analyze(same).groups] == ["at aaaaaa", "at bbbbbb"]


def test_two_attacks_on_the_same_examples_count_once():
    own, other = inside(), outside()
    assert analyze([own, own, other, other]).groups == analyze([own, other]).groups


def test_one_example_each_and_two_classes():
    numbers = analyze([
        logits_of([[3.0, 0.0]]), logits_of([[0.1, 0.0]], data="other", labels=-1),
    ]).numbers  # fmt: skip
    assert (numbers["auroc"], numbers["fpr95"], numbers["in_entropy_ci95"]) == (1, 0, None)
    assert numbers["auroc_ci95"][0] < 0.5


@pytest.mark.parametrize(
    ("files", "error", "message"),
    [
        ([inside()], InputError, "no file is out of distribution"),
        ([outside()], InputError, r"x\.h5: no file is in distribution"),
        ([inside("a"), outside("b")], MismatchError, "no file out of distribution is of the same"),
        ([inside("a"), outside("a"), outside("b", path="b.h5")], MismatchError,
         r"b\.h5: no file in distribution is of the same"),
        ([inside(), inside(n=9), outside()], MismatchError, "on other examples"),
        ([inside(), inside(data="second"), outside()], MismatchError, "on other examples"),
        ([inside(), outside(), outside(n=9)], MismatchError, "on other examples"),
    ],
)  # fmt: skip
def test_files_without_a_partner(files, error, message):
    with pytest.raises(error, match=message):
        analyze(files)


def test_a_set_that_shares_classes_with_the_models_is_not_out_of_distribution():
    """Taken for outside, its labelled examples would draw the AUROC to a half."""
    mixed = outside()
    mixed.labels[:2] = 0
    with pytest.raises(InputError, match=r"2 of \d+ examples are of the model's own classes"):
        analyze([inside(), mixed])


def test_needs_a_bin():
    with pytest.raises(UsageError, match="--bins"):
        analyze([inside(), outside()], bins=0)


def test_command_line(cli, tiny_run, tiny_logits, tmp_path):
    """From a checkpoint and foreign images to a picture, by pipe."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    dark = (255 - images.reshape(-1, 8, 8, 1) * 15).astype("uint8")
    for split in ("train", "test"):
        np.savez(tmp_path / f"{split}.npz", image=dark[:40], label=labels[:40] % 4)
    best = tiny_run / "best.safetensors"
    other = tmp_path / "other.h5"
    made = cli("attack", best, "--attack", "none", "--data", f"npz:{tmp_path}", "-o", other)
    assert made.code == 0, made.err
    lines = f"{tiny_logits}\n{other}\n"
    outcome = cli("analyze", "ood", "--plot", tmp_path / "ood.svg", stdin=lines)
    assert outcome.code == 0, outcome.err
    assert outcome.record["pairs"] == 1
    assert 0 <= outcome.record["auroc"] <= 1
    assert (tmp_path / "ood.svg").stat().st_size > 1000
    alone = cli("analyze", "ood", tiny_logits)
    assert alone.code == 3
    assert len(alone.err.strip().splitlines()) == 1
