"""What `recipes/_pack.py` makes of logits files is what the report reads."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from advkit.artifacts.hdf5 import Logits, write_logits
from tests.described import described

ROOT = Path(__file__).parents[1]
N = 11
CE = [-1, -1, 0, -2, -1, 0, -1, -1, -2, -1, 0]
T = [-1, 0, -1, -2, -1, 0, -1, -1, -2, 0, -1]
"""`broken_by` of two attacks: −2 wrong when clean, −1 robust, 0 broken."""


@pytest.fixture(scope="module")
def summaries() -> SimpleNamespace:
    sys.path.insert(0, str(ROOT / "tools" / "docs"))
    try:
        from study import summaries
    finally:
        sys.path.remove(str(ROOT / "tools" / "docs"))
    return summaries


def attacked(path: Path, broken: list[int], *names: str, index: list[int] | None = None) -> None:
    """A logits file whose verdicts are given; logits agree with them."""
    n = len(broken)
    own = torch.tensor(list(range(n)) if index is None else index)
    labels = own % 3
    wrong, fooled = torch.tensor(broken) == -2, torch.tensor(broken) != -1
    say = [torch.nn.functional.one_hot((labels + moved) % 3, 3).float() for moved in
           (wrong.long(), fooled.long())]  # fmt: skip
    info = described("logits", attacks=list(names))
    write_logits(path, Logits(own, labels, say[0], info, say[1], torch.zeros(n),
                              torch.tensor(broken, dtype=torch.int8)))  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "S-at-s3"
    run.mkdir()
    (tmp_path / "summary").mkdir()
    Path("S-at-s3.train.jsonl").write_text('{"kind": "checkpoint", "epoch": 7}\n')
    for point in ("best", "best-ema"):
        attacked(run / f"{point}.apgd-ce-linf-8-255-steps-50.h5", CE, "apgd-ce")
        # The order of rows is the file's own: the images' counts.
        order = list(range(N))[::-1]
        attacked(run / f"{point}.apgd-t-linf-8-255-steps-50.h5", T[::-1], "apgd-t", index=order)
    return tmp_path


def pack(monkeypatch, kind: str, *words: str) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "argv", ["_pack.py", kind, *words])
        runpy.run_path(str(ROOT / "recipes" / "_pack.py"), run_name="__main__")


def test_robust_is_who_stands_under_both_attacks(folder, monkeypatch, summaries):
    pack(monkeypatch, "run", "S-at-s3", "--asked", "--epochs 60", "--points", "best,best-ema",
         "--out", "summary/S-at-s3.json")  # fmt: skip
    given = json.loads(Path("summary/S-at-s3.json").read_text())
    assert (given["asked"], given["n"], given["training"]) == ("--epochs 60", N, {"epoch": 7})
    run = summaries.read(Path("summary")).runs["S", "at", 3]
    assert run.verdicts.keys() == {"best", "best-ema"}
    assert run.verdicts["best"]["clean"].tolist() == [each != -2 for each in CE]
    both = [one == other == -1 for one, other in zip(CE, T, strict=True)]
    assert run.verdicts["best-ema"]["robust"].tolist() == both


def test_autoattack_s_first_two_are_told_apart(folder, monkeypatch, summaries):
    pack(monkeypatch, "run", "S-at-s3", "--points", "best", "--out", "summary/S-at-s3.json")
    some = [0, 4, 9]  # among 11; the last is broken by Square alone
    attacked(folder / "S-at-s3" / "best.autoattack-linf-n3.h5", [-1, 1, 3],
             "apgd-ce", "apgd-t", "fab-t", "square", index=some)  # fmt: skip
    pack(monkeypatch, "autoattack", "S-at-s3", "--points", "best",
         "--out", "summary/S-at-s3.autoattack.json")  # fmt: skip
    check = summaries.read(Path("summary")).checks["S", "at", 3]
    assert check.autoattack.tolist() == [True, False, False]
    assert check.fast.tolist() == [True, False, True]
    both = [one == other == -1 for one, other in zip(CE, T, strict=True)]
    assert check.short.tolist() == [both[place] for place in some]


def test_what_the_search_chose_becomes_options(folder, monkeypatch):
    record = {"tau": "2:1", "lambda": "0.3:0.6", "ema_decay": 0.97, "trials": 6, "n": 500,
              "verdict": "better", "difference": 0.02, "difference_low": 0.0,
              "difference_high": 0.04}  # fmt: skip
    Path("search.jsonl").write_text(f'{{"kind": "checkpoint"}}\n{json.dumps(record)}\n')
    pack(monkeypatch, "numbers", "search.jsonl", "--out", "summary/S-numbers.json")
    given = json.loads(Path("summary/S-numbers.json").read_text())
    assert given["options"] == "--tau 2:1 --lambda 0.3:0.6 --ema-decay 0.97"


def test_files_that_do_not_fit_are_refused(folder, monkeypatch):
    run = folder / "S-at-s3"
    attacked(run / "best.apgd-t-linf-8-255-steps-9.h5", T, "apgd-t")
    with pytest.raises(SystemExit, match="2 files of apgd-t on best: wanted one"):
        pack(monkeypatch, "run", "S-at-s3", "--points", "best", "--out", "summary/a.json")
    for path in run.glob("best.apgd-t-*"):
        path.unlink()
    attacked(run / "best.apgd-t-linf-n3.h5", T[:3], "apgd-t")
    with pytest.raises(SystemExit, match="the two attacks saw other images"):
        pack(monkeypatch, "run", "S-at-s3", "--points", "best", "--out", "summary/a.json")
    assert list(Path("summary").iterdir()) == []
