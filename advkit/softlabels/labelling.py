"""A teacher's logits for every training example, once for many runs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from advkit import models
from advkit.artifacts import provenance
from advkit.artifacts.descriptions import Checkpoint, Labels
from advkit.artifacts.soft_labels import Writer
from advkit.errors import MismatchError, NumericalError, UsageError
from advkit.images.augment import apply_views, draw_views, every_view
from advkit.images.image_set import Images, ImageSet, pixels
from advkit.parallel.shards import Shard
from advkit.registry import sources
from advkit.runtime import modes, seeding
from advkit.runtime.reporting import Reporter

PART_BYTES = 16 << 20
"""Logits of a part, about: what a kill loses, and what is in memory at a time."""
IMPLAUSIBLE = 0.2
"""How far a teacher may fall below its validation accuracy before the images or labels are
suspected to be others than those it was trained on."""
SPLIT = ("split_seed", "val_size", "limit")
"""What makes the teacher's validation split, which its students share."""
FLOATS = {"float32": torch.float32, "float16": torch.float16}


def view_table(images: ImageSet, views: str, seed: int) -> Tensor | None:
    """Return the views of every example, (N, V, 3) uint8, or None for the plain image.

    Args:
        images: the training split, which declares padding and flip.
        views: `1`, a count K (seeded draws), or `all` ((2·pad + 1)²·(1 + flip) of them).
        seed: of the K draws.

    Raises:
        UsageError: not a count and not `all`.
    """
    n = len(images.labels)
    if not isinstance(images, Images) and views != "1":
        raise UsageError(
            f"--views {views}: of {images.name} only the plain image can be labelled once "
            "(--views 1); for labels of every crop train with --teacher"
        )
    if views == "all":
        table = every_view(images.pad, images.flip)
        return table.expand(n, -1, -1).contiguous()
    if not views.isdecimal() or int(views) < 1:
        raise UsageError(f"--views {views}: a count from 1 on, or all")
    if int(views) == 1:
        return None
    generator = seeding.generator(seed, "views")
    return draw_views(n * int(views), images.pad, images.flip, generator).view(n, int(views), 3)


def view_count(views: str, pad: int, flip: bool) -> int:
    """Return V for `1`, a count, or `all`."""
    return (2 * pad + 1) ** 2 * (1 + flip) if views == "all" else int(views)


def part_rows(classes: int, views: int) -> int:
    """Return how many examples are labelled, and written, as one part."""
    return max(1, PART_BYTES // (4 * classes * views))


class Labelling:
    """One labels file in the making."""

    def __init__(
        self,
        teacher: nn.Module,
        info: Checkpoint,
        images: ImageSet,
        *,
        views: str,
        dtype: str,
        top_k: int | None,
        seed: int,
        batch_size: int,
        environment: Mapping[str, object],
        reporter: Reporter | None = None,
        shard: Shard | None = None,
    ) -> None:
        self.teacher, self.info, self.images = teacher, info, images
        self.reporter = reporter or Reporter()
        self.device = next(teacher.parameters()).device
        self.classes = len(images.classes)
        if list(images.classes) != list(info["data"]["classes"]):
            raise MismatchError(
                f"the teacher knows {len(info['data']['classes'])} classes of "
                f"{info['data']['name']}, the data set has others ({self.classes})"
            )
        if top_k is not None and not 0 < top_k < self.classes:
            raise UsageError(f"--top-k {top_k}: between 1 and {self.classes - 1}")
        if dtype not in FLOATS:
            raise UsageError(f"--dtype {dtype}: float32 or float16")
        self.dtype, self.top_k, self.batch_size = FLOATS[dtype], top_k, batch_size
        # A folder's images may have been resized; students load them at the same size.
        resized = info["config"].get("image_size") is not None
        expected = tuple(info.get("model", {}).get("input_shape", ()))[1:]
        size = images.shape[1] if resized or images.shape[1:] != expected else None
        self.table = view_table(images, views, seed)
        self.environment = dict(environment)
        self.seed = seed
        self.config: dict[str, object] = {
            "data": images.name,
            "views": views,
            "dtype": dtype,
            "top_k": top_k,
            "seed": seed,
        }
        if size is not None:
            self.config["image_size"] = size
        if shard is not None:
            total = len(images.labels)
            self.config |= {"shard": shard.described, "batch_size": batch_size, "examples": total}
        self.rows = self._share(shard)
        self.arch = info["arch"]
        self.parts = sources.digests(
            *sources.family(info["arch"]), *sources.foreign("data", images.name)
        )

    @property
    def view_count(self) -> int:
        """V."""
        return 1 if self.table is None else int(self.table.shape[1])

    @property
    def _step(self) -> int:
        """Examples in a forward pass."""
        return max(1, self.batch_size // self.view_count)

    def _share(self, shard: Shard | None) -> range:
        """Return the rows to label: all, or a shard's run of whole batches.

        A shard begins and ends where one process would begin a batch, so that its forward passes
        are the same and so is every bit of what the teacher says.

        Raises:
            UsageError: more shards than batches.
        """
        every = range(len(self.images.labels))
        if shard is None:
            return every
        size = part_rows(self.classes, self.view_count)
        parts = (every[start : start + size] for start in every[::size])
        starts = [start for part in parts for start in part[:: self._step]]
        shard.require(len(starts), f"batches of {self._step} examples (see --batch-size)")
        first, last = (len(starts) * k // shard.count for k in (shard.number - 1, shard.number))
        return range(starts[first], [*starts, len(every)][last])

    def _blocks(self) -> dict[int, Tensor]:
        """Return the rows of each part by the part's number in the whole file."""
        size = part_rows(self.classes, self.view_count)
        rows = torch.arange(self.rows.start, self.rows.stop)
        parts = range(self.rows.start // size, (self.rows.stop - 1) // size + 1)
        return {number: rows[rows // size == number] for number in parts}

    def write(self, out: Path, ready: Callable[[], None] = lambda: None) -> Labels:
        """Label what is not labelled yet, join the parts, and return the description.

        Args:
            out: where the file goes.
            ready: called before it is put in place; may raise to keep it away.

        Raises:
            NumericalError: the teacher gives NaN or infinite logits.
            StorageError: disk full, folder gone; finished parts are kept.
        """
        blocks, size = self._blocks(), part_rows(self.classes, self.view_count)
        writer = Writer(out, {"work": self._identity(), "rows": size})
        self.reporter.begin("labelling", len(self.rows))
        began, done = time.monotonic(), 0
        with modes.evaluating(self.teacher), modes.frozen(self.teacher):
            for number, block in blocks.items():
                if not writer.has(number, self._known(block)):
                    writer.add(number, *self._part(block))
                done += len(block) * self.view_count
                rate = done / max(time.monotonic() - began, 1e-9)
                self.reporter.advance(len(block), rate=f"{rate:.0f} images/s")
        self.reporter.end()
        accuracy = writer.hits / (len(self.rows) * self.view_count)
        self.suspect(accuracy)
        description = self._describe(accuracy)
        ready()
        return cast(Labels, {**description, "digest": writer.finish(blocks, description)})

    def _known(self, block: Tensor) -> dict[str, Tensor]:
        """Return what a part holds whatever the teacher says."""
        known = {"/index": block.clone(), "/labels": self.images.labels[block].clone()}
        return known if self.table is None else {**known, "/views": self.table[block].clone()}

    @torch.no_grad()
    def _part(self, block: Tensor) -> tuple[dict[str, Tensor], int]:
        """Return one part's arrays and in how many views the teacher is right."""
        batches = [self._rows(rows) for rows in torch.split(block, self._step)]
        joined = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
        joined |= self._known(block)
        return joined, int(joined.pop("hits").sum())

    def _rows(self, rows: Tensor) -> dict[str, Tensor]:
        """Label a few examples under all their views."""
        raw = self.images.batch(rows)
        if self.table is not None:
            repeated = raw.repeat_interleave(self.view_count, 0)
            raw = apply_views(repeated, self.table[rows].flatten(0, 1), self.images.pad)
        logits = self.teacher(pixels(raw, self.device))
        models.require_logits(logits, len(raw), self.classes, self.arch)
        logits = logits.float().cpu()
        if not bool(torch.isfinite(logits).all()):
            raise NumericalError(
                f"the teacher's logits of example {int(rows[0])} on are not finite"
            )
        # All views of an example follow each other, as its rows of the table do.
        y = self.images.labels[rows].repeat_interleave(self.view_count)
        hits = (logits.argmax(1) == y).sum()[None]
        # Softmax does not see a shift; with the maximum at 0 half precision loses least.
        logits = logits - logits.amax(1, keepdim=True)
        shape = (len(rows), self.view_count) if self.table is not None else (len(rows),)
        if self.top_k is None:
            return {"/logits": self._narrow(logits.view(*shape, -1)), "hits": hits}
        # The mass of the classes left out is kept as one number, so that rows still sum to 1.
        values, classes = logits.topk(self.top_k, dim=1)
        others = logits.scatter(1, classes, -math.inf).logsumexp(1)
        return {
            "/logits": self._narrow(values.view(*shape, -1)),
            "/classes": classes.to(torch.int16).view(*shape, -1),
            "/rest": self._narrow(others.view(shape)),
            "hits": hits,
        }

    def _narrow(self, values: Tensor) -> Tensor:
        # Half precision would turn what lies below its range into -inf, and 0 · -inf into NaN.
        lowest = torch.finfo(self.dtype).min
        return values.clamp_min(lowest).to(self.dtype)

    def suspect(self, accuracy: float) -> None:
        """Warn of a teacher that is far worse on these images than where it was selected."""
        if self.info.get("imported"):  # nobody knows how good it was; importing it told
            return
        expected = self.info.get("metrics", {}).get("clean_accuracy", 0.5)
        if accuracy < expected - IMPLAUSIBLE:
            self.reporter.warn(
                f"the teacher's top-1 on its training views is {accuracy:.3f}, far below its "
                f"validation accuracy {expected:.3f}: other images, or labels in another order?"
            )

    def _identity(self) -> dict[str, object]:
        return {
            "teacher": self.info["digest"],
            "data": self.images.fingerprint,
            "config": self.config,
            "environment": self.environment,
            "parts": self.parts,
        }

    def _describe(self, accuracy: float) -> dict[str, object]:
        source = provenance.data_parent(
            self.images.name, "train", self.images.fingerprint, self.images.how
        )
        return provenance.describe(
            "labels",
            config=self.config,
            seed=self.seed,
            parents=[provenance.parent(self.info), source],
            environment=self.environment,
            method=self.info["method"],
            arch=self.info["arch"],
            data={"name": self.images.name, "classes": list(self.images.classes)},
            pad=self.images.pad,
            flip=self.images.flip,
            split={key: self.info["config"].get(key) for key in SPLIT},
            teacher_accuracy=accuracy,
            parts=self.parts,
        )
