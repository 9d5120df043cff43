"""`advkit softlabels`: a teacher's logits for the whole training split, once for many runs."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advkit.artifacts import record as records
from advkit.artifacts.record import Record
from advkit.cli import options, stage
from advkit.cli.options import Command, Given
from advkit.registry import Option

if TYPE_CHECKING:
    from advkit.softlabels import Labelling

DTYPES = ("float32", "float16")
OWN = (
    Option("views", "str", None, "1 (the plain image), a count K, or all (1)", "Labels"),
    Option("dtype", "str", None, "precision of the file (float32)", "Labels", DTYPES),
    Option("top_k", "int", None, "keep K logits a row and the mass of the rest", "Labels"),
    Option("seed", "int", None, "seed of the K views (0)", "Labels"),
    Option("data", "str", None, "data set; the teacher's", "Data"),
    Option("image_size", "int", None, "of folder:DIR; the teacher's input size", "Data"),
    Option("batch_size", "int", None, "images in a forward pass (500)", "Machine"),
)


def run(given: Given) -> Iterator[Record]:
    """Label with every teacher that comes in."""
    stage.require_one(given)
    return stage.each(given, "softlabels", ("checkpoint",), lambda source: _labelled(given, source))


def _labelled(given: Given, source: Record) -> Record:
    from advkit import models
    from advkit.artifacts import files, soft_labels
    from advkit.audit import require_finite
    from advkit.softlabels import Labelling

    path = Path(records.wanted(source, ("checkpoint",)))
    device = stage.device(given["device"])
    model, info = models.load(path, device)
    require_finite(model.state_dict(), path)
    threads = stage.threads(given, info["arch"])
    stage.use_threads(threads)
    place = stage.location(given, source, path, info)
    images = stage.images(given, place, info, "train")
    work = Labelling(
        model, info, images,
        views=given["views"] or "1", dtype=given["dtype"] or "float32", top_k=given["top_k"],
        seed=given["seed"] or 0, batch_size=given["batch_size"] or 500,
        environment={"device": device.type, "threads": threads},
        reporter=stage.speaker("softlabels", given),
    )  # fmt: skip
    out = stage.output(given) or _place(path, work)
    stage.require_file_name(out)
    began = time.monotonic()
    with files.lock(out):
        if out.exists() and not given["overwrite"]:
            there = soft_labels.read(out).info
            _require_same(dict(there), work, out)
            shutil.rmtree(soft_labels.parts_of(out), ignore_errors=True)
            work.reporter.note(f"{out}: already done")
            return _record(out, dict(there), path, place, 0.0)
        described = work.write(out)
    return _record(out, described, path, place, round(time.monotonic() - began, 3))


def _place(path: Path, work: Labelling) -> Path:
    words = [f"views-{work.config['views']}"]
    if work.config["dtype"] != "float32":
        words.append(work.config["dtype"])
    if work.config["top_k"]:
        words.append(f"top{work.config['top_k']}")
    if work.seed:
        words.append(f"s{work.seed}")
    return path.with_name(f"{path.stem}.labels-{'-'.join(words)}.h5")


def _require_same(there: dict[str, Any], work: Labelling, out: Path) -> None:
    before = {
        **there["config"],
        "teacher": there["parents"][0]["digest"],
        "data digest": there["parents"][1]["digest"],
    }
    now = {
        **work.config, "teacher": work.info["digest"], "data digest": work.images.fingerprint
    }  # fmt: skip
    stage.require_same(before, now, out)


def _record(out: Path, info: dict[str, Any], teacher: Path, data: str, seconds: float) -> Record:
    return records.make(
        "labels",
        out,
        info["digest"],
        run=teacher.resolve().parent.name,
        checkpoint=records.relative(teacher),
        data=data,
        arch=info["arch"],
        method=info["method"],
        views=info["config"]["views"],
        teacher_accuracy=info["teacher_accuracy"],
        seconds=seconds,
    )


COMMAND = Command(
    "softlabels",
    "Write a teacher's logits for every training example; any temperature is applied later.",
    (*OWN, options.DATA_ROOT, *options.MACHINE, options.OUT, options.OVERWRITE),
    run,
    argument="[CHECKPOINT]...",
    example="advkit softlabels runs/digits-small-cnn-natural-s0/best.safetensors --views all",
)
