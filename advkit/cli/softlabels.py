"""`advkit softlabels`: a teacher's logits for the whole training split, once for many runs."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advkit.artifacts import identity
from advkit.artifacts import record as records
from advkit.artifacts.record import Record
from advkit.cli.common import machine, options, shards, stage
from advkit.cli.common.options import Command, Given
from advkit.options import Option
from advkit.softlabels.merge import labels

if TYPE_CHECKING:
    from advkit.softlabels.labelling import Labelling

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
    """Label with every teacher that comes in, or join the shards of one labels file."""
    shards.check(given)
    if given["merge"]:
        return _joined(given)
    stage.require_one(given)
    return stage.each(given, "softlabels", ("checkpoint",), lambda source: _labelled(given, source))


def _joined(given: Given) -> Iterator[Record]:
    from advkit.artifacts import files

    found = shards.inputs(given, "labels")
    out = shards.merged_place(given, found)
    stage.require_file_name(out)
    began = time.monotonic()
    with files.lock(out):
        info = _merged(given, [Path(each["path"]) for each in found], out)
    teacher = shards.parent_file(found, info)
    place = next((each["data"] for each in found if "data" in each), info["data"]["name"])
    yield _record(out, info, teacher, place, round(time.monotonic() - began, 3))


def _merged(given: Given, paths: Sequence[Path], out: Path) -> dict[str, Any]:
    """Put the whole file in place at `out`, or find it there, and return its description.

    Raises:
        MismatchError: not all shards of one labels file, or something else lies there.
    """
    from advkit.artifacts import soft_labels

    if out.exists() and not given["overwrite"]:
        there = dict(soft_labels.read(out, stay=True).info)
        shards.require_whole(there, paths, out)
        machine.speaker("softlabels", given).note(f"{out}: already done")
        return there
    return labels(paths, out)


def _labelled(given: Given, source: Record) -> Record | None:
    path = Path(records.wanted(source, ("checkpoint",)))
    work, data = _work(given, source, path)
    place = stage.output(given) or _place(path, work)
    stage.require_file_name(place)
    began = time.monotonic()
    if not shards.launched(given):
        shard = shards.chosen(given)
        out = shard.beside(place) if shard else place
        info, done = _written(given, work, out)
        seconds = 0.0 if done else round(time.monotonic() - began, 3)
        return _record(out, info, path, data, seconds)
    shared = shards.together(
        given, "softlabels", place, "labels",
        find=lambda: _written(given, _work(given, source, path, whole=True)[0], place)[0],
        work=lambda out: _written(given, work, out, place),
        merge=lambda paths: _merged(given, paths, place),
    )  # fmt: skip
    if shared is None:
        return None
    info, done = shared
    return _record(place, info, path, data, 0.0 if done else round(time.monotonic() - began, 3))


def _work(
    given: Given, source: Record, path: Path, *, whole: bool = False
) -> tuple[Labelling, str]:
    """Return the labelling that is asked for, `whole` or this process's part, and its data set."""
    from advkit import models
    from advkit.models import require_finite
    from advkit.softlabels.labelling import Labelling

    device = machine.device(given["device"])
    model, info = models.load(path, device)
    require_finite(model.state_dict(), path)
    threads = machine.threads(given, info["arch"])
    machine.use_threads(threads)
    place = stage.location(given, source, path, info)
    images = stage.images(given, place, info, "train")
    work = Labelling(
        model, info, images,
        views=given["views"] or "1", dtype=given["dtype"] or "float32", top_k=given["top_k"],
        seed=given["seed"] or 0, batch_size=given["batch_size"] or 500,
        environment={"device": device.type, "threads": threads},
        reporter=machine.speaker("softlabels", given),
        shard=None if whole else shards.chosen(given),
    )  # fmt: skip
    return work, place


def _written(
    given: Given, work: Labelling, out: Path, whole: Path | None = None
) -> tuple[dict[str, Any], bool]:
    """Return the description of the file at `out` and whether it was there already.

    Where the shard is gone because it is merged already, it is that of the `whole`.
    """
    from advkit.artifacts import files, soft_labels

    with files.lock(out):
        if out.exists() and not given["overwrite"]:
            there = soft_labels.read_parts(out, soft_labels.LARGE)[1]
            _require_same(there, work, out)
            shutil.rmtree(soft_labels.parts_of(out), ignore_errors=True)
            work.reporter.note(f"{out}: already done")
            return there, True
        if whole is not None and whole.exists() and not given["overwrite"]:
            return soft_labels.read_parts(whole, soft_labels.LARGE)[1], True
        return work.write(out), False


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
    now = identity.of_work(
        work.config, work.info["digest"], work.images.fingerprint, called="teacher"
    )
    identity.require_same(identity.identity(there, "teacher"), now, out)


def _record(
    out: Path, info: dict[str, Any], teacher: Path | None, data: str, seconds: float
) -> Record:
    return records.make(
        "labels",
        out,
        info["digest"],
        **shards.of(teacher, out),
        data=data,
        arch=info["arch"],
        method=info["method"],
        views=info["config"]["views"],
        teacher_accuracy=info["teacher_accuracy"],
        **shards.named(info),
        seconds=seconds,
    )


COMMAND = Command(
    "softlabels",
    "Write a teacher's logits for every training example; any temperature is applied later.",
    (
        *OWN,
        options.MERGE,
        options.DATA_ROOT,
        *options.MACHINE,
        options.SHARD,
        options.OUT,
        options.OVERWRITE,
    ),
    run,
    argument="[CHECKPOINT]...",
    example="advkit softlabels runs/digits-small-cnn-natural-s0/best.safetensors --views all",
)
