"""Whole files with a right digest whose description was forged in one key, through every stage.

Where `inspect` finds nothing wrong, nothing may be missing to any stage; what it refuses, every
stage refuses, with exit 3 and in one line. Exit 4 is for a good value that does not fit.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from advkit import registry
from advkit.artifacts import checkpoint, hdf5, provenance, soft_labels
from advkit.artifacts.rows import loaded

EARLIER = Path(__file__).parents[1] / "earlier"
CHECKPOINT, STATE = "teacher/best.safetensors", "run/state.safetensors"
LABELS, LOGITS, ANALYSIS = "labels.h5", "logits.h5", "calibration.json"
LABELS_SHARD, LOGITS_SHARD = "labels.shard-2-of-2.h5", "logits.shard-2-of-2.h5"
KINDS = (CHECKPOINT, STATE, LABELS, LABELS_SHARD, LOGITS, LOGITS_SHARD, ANALYSIS)
TINY = ["--limit", 60, "--epochs", 1, "--batch-size", 16, "--width", 2, "--attack-steps", 1,
        "--threads", 1, "-q", "--overwrite"]  # fmt: skip
# A run is refused or goes to its end, whatever it learns.
LTD = ["train", "--method", "ltd", "--temperature", 5, *TINY]
LONGEST = 1000
OTHERS = (7, "x", [1], {"a": 1}, None, True, 0.5)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to every key and entry at any depth."""
    if not isinstance(value, dict | list):
        return
    for key, each in value.items() if isinstance(value, dict) else enumerate(value):
        yield (*path, key)
        yield from places(each, (*path, key))


def forged(info: dict, draw: Random) -> tuple[dict, str]:
    """Return a copy with one key removed, retyped, emptied or made huge, and what was done."""
    copy: Any = json.loads(json.dumps({k: v for k, v in info.items() if k != "digest"}))
    path = draw.choice([*places(copy)])
    how = draw.choice(("removed", "retyped", "emptied", "huge"))
    holder = copy
    for key in path[:-1]:
        holder = holder[key]
    old = holder[path[-1]]
    if how == "removed":
        del holder[path[-1]]
    elif how == "retyped":
        holder[path[-1]] = draw.choice([each for each in OTHERS if type(each) is not type(old)])
    elif how == "emptied":
        holder[path[-1]] = type(old)() if isinstance(old, str | list | dict) else None
    else:
        holder[path[-1]] = huge(old)
    return copy, f"{'.'.join(map(str, path))} {how}"


def huge(value: Any) -> Any:
    if isinstance(value, str):
        return "x" * 100_000
    if isinstance(value, list):
        return (value or [0]) * 200_000
    if isinstance(value, dict):
        return {str(number): number for number in range(10_000)}
    return 1e308 if isinstance(value, float) else 10**30


def rewrite(path: Path, change: Callable[[dict], dict]) -> None:
    """Replace a file's description, with the digest that belongs to it."""
    if path.suffix == ".safetensors":
        kind = "state" if path.name.startswith("state") else "checkpoint"
        tensors, info = checkpoint.read(path, kind)
        checkpoint.write(path, tensors, change(dict(info)))
    elif path.suffix == ".json":
        content = json.loads(path.read_text())
        info = change(content.pop("advkit"))
        raw = provenance.canonical(content).encode()
        array = provenance.Array("analysis", "json", (len(raw),), raw)
        full = {**info, "digest": provenance.digest(info, [array])}
        path.write_text(json.dumps({"advkit": full, **content}))
    elif path.name.startswith("labels"):
        arrays, info = soft_labels.read_parts(path)
        rows = {name: loaded(array).numpy() for name, array in arrays.items()}
        soft_labels.write(path, [rows], change(dict(info)))
    else:
        found = hdf5.read_logits(path)
        hdf5.write_logits(path, dataclasses.replace(found, info=change(dict(found.info))))


def stages(name: str) -> list[list[object]]:
    """Return what takes a file of this kind and ends well on the honest one; quick ones first."""
    merged = ["-o", "merged.h5", "--overwrite", "-q"]
    found: dict[str, list[list[object]]] = {
        CHECKPOINT: [
            ["attack", name, "--attack", "fgsm", "--limit", 20, "--overwrite", "-q"],
            ["softlabels", name, "--overwrite", "-q", "--threads", 1, "-o", "made.h5"],
            [*LTD, "--teacher", name, "-o", "made"],
            ["attack", "run/best.safetensors", "--attack", "transfer", "--surrogate", name,
             "--limit", 20, "--overwrite", "-q"],
        ],
        STATE: [["train", "--resume", "-o", "run", "--threads", 1, "-q"]],
        LABELS: [[*LTD, "--soft-labels", name, "-o", "made"], ["analyze", "labels", name]],
        LABELS_SHARD: [["softlabels", "--merge", "labels.shard-1-of-2.h5", name, *merged]],
        LOGITS: [["analyze", "calibration", name], ["analyze", "table", name]],
        LOGITS_SHARD: [["attack", "--merge", "logits.shard-1-of-2.h5", name, *merged]],
        ANALYSIS: [],
    }  # fmt: skip
    return found[name]


def analyses(name: str) -> list[list[object]]:
    """Return every analysis that may take a file of this kind, alone or with another."""
    kind = {CHECKPOINT: "checkpoint", LABELS: "labels", LOGITS: "logits"}.get(name)
    parts = registry.parts("analyses").values()
    names = [part.name for part in parts if kind in part.constants.get("KINDS", ("logits",))]
    return [["analyze", each, name, *more] for each in names for more in ([], ["again.h5"])]


def honest(folder: Path) -> None:
    """Fill the folder, which is the working directory, with the files as they were written."""
    for each in folder.iterdir():
        shutil.rmtree(each) if each.is_dir() else each.unlink()
    shutil.copytree(EARLIER, folder, dirs_exist_ok=True)
    shutil.copy(folder / LOGITS, folder / "again.h5")


def judged(cli: Callable[..., Any], folder: Path, name: str, seed: str, runs: list) -> list[str]:
    """Forge one file and put it through stages; return what was wrong."""
    draw = Random(seed)
    honest(folder)
    said = []
    rewrite(folder / name, lambda info: said.append(forged(info, draw)) or said[0][0])
    what = f"{name}: {said[0][1]}"
    whole = 0 if name == STATE else cli("inspect", name).code
    codes = {0, 3, 4} if name == STATE else {0, 4} if whole == 0 else {whole}
    wrong = [] if whole in (0, 3, 4) else [f"{what}: inspect gives {whole}"]
    for arguments in runs:
        done = cli(*arguments)
        errors = [line for line in done.err.splitlines() if "error: " in line]
        if done.code not in codes or len(errors) != (done.code != 0):
            wrong.append(f"{what}: {arguments[:2]} gives {done.code}, inspect {whole}: {done.err}")
        if any(len(line) > LONGEST or "Error:" in line for line in errors):
            wrong.append(f"{what}: {arguments[:2]}: {errors[0][:200]}")
    return wrong


def campaign(cli: Callable[..., Any], folder: Path, name: str, count: int, runs: list) -> None:
    wrong = [
        line
        for case in range(count)
        for line in judged(cli, folder, name, f"{name} {case}", runs)
    ]  # fmt: skip
    assert wrong == []


@pytest.fixture
def folder(tmp_path, monkeypatch):
    honest(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", [LABELS_SHARD, LOGITS, LOGITS_SHARD, ANALYSIS])
def test_a_few_forgeries_are_refused_everywhere_or_nowhere(cli, folder, name):
    campaign(cli, folder, name, 3, stages(name)[:1])


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_forgeries_are_refused_everywhere_or_nowhere(cli, folder, name):
    """72 forgeries of each of the seven files: 504, through all that takes them."""
    runs = stages(name)
    for arguments in runs:
        assert cli(*arguments).code == 0, arguments
        honest(folder)
    fine = [arguments for arguments in analyses(name) if cli(*arguments).code == 0]
    assert len(fine) >= {CHECKPOINT: 4, LABELS: 2, LOGITS: 8}.get(name, 0)
    campaign(cli, folder, name, 72, [*runs, *fine])
