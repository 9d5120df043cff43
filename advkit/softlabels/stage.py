"""The stage that labels with a teacher: one file, made, found there, or joined from shards."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from advkit import data, models, registry
from advkit.artifacts import checkpoint, files, hdf5, identity, locks, sharing, soft_labels
from advkit.artifacts import record as records
from advkit.artifacts.descriptions import Labels
from advkit.artifacts.record import Record
from advkit.config.location import location
from advkit.config.machine import computing
from advkit.parallel import shards
from advkit.runtime import signals
from advkit.runtime.reporting import Reporter
from advkit.softlabels import merge
from advkit.softlabels.labelling import Labelling
from advkit.softlabels.options import SoftlabelsOptions


@dataclass(frozen=True)
class Labelled:
    """A labels file in place: its description, its teacher and where the data lie."""

    info: Labels
    path: Path
    teacher: Path | None
    data: str
    seconds: float

    @property
    def record(self) -> Record:
        """What the stage prints of it."""
        info = self.info
        return records.make(
            "labels",
            self.path,
            info["digest"],
            **sharing.origin(self.teacher, self.path),
            data=self.data,
            arch=info["arch"],
            method=info["method"],
            views=info["config"]["views"],
            teacher_accuracy=info["teacher_accuracy"],
            **sharing.named(info),
            seconds=self.seconds,
        )


def label(
    path: Path, options: SoftlabelsOptions, reporter: Reporter | None = None
) -> Labelled | None:
    """Label the training split with the teacher of a checkpoint, or find that done.

    Under torchrun the processes share the work, and rank 0 alone returns it.

    Raises:
        AdvkitError: see `errors`; finished parts are kept and gone on from.
    """
    work = LabelsWork(path, options, reporter or Reporter())
    hdf5.require_name(work.place)
    began = time.monotonic()
    if not shards.launched(options.shard):
        shard = shards.chosen(options.shard)
        out = shard.beside(work.place) if shard else work.place
        info, done = work.written(out)
    else:
        shared = sharing.together(work)
        if shared is None:
            return None
        out, (info, done) = work.place, shared
    return Labelled(info, out, path, work.data, 0.0 if done else round(time.monotonic() - began, 3))


def join(
    sources: Sequence[Record], out: Path, *, overwrite: bool = False, reporter: Reporter
) -> Labelled:
    """Join the shards of one labels file, or find the whole in its place.

    Raises:
        MismatchError: not all shards of one labels file, or something else lies there.
    """
    hdf5.require_name(out)
    began = time.monotonic()
    paths = [Path(record["path"]) for record in sources]
    files.require_apart([out], paths)
    with locks.unless(out.exists() and not overwrite, out):
        info = _joined(paths, out, overwrite, reporter)
    teacher = sharing.parent_file(sources, info)
    place = next((record["data"] for record in sources if "data" in record), info["data"]["name"])
    return Labelled(info, out, teacher, place, round(time.monotonic() - began, 3))


def _joined(paths: Sequence[Path], out: Path, overwrite: bool, reporter: Reporter) -> Labels:
    if out.exists() and not overwrite:
        info = soft_labels.read(out, stay=True).info
        sharing.require_whole(info, paths, out)
        reporter.note(f"{out}: already done")
        return info
    return merge.labels(paths, out)


class LabelsWork(sharing.ShardedWork[Labels]):
    """One labels file: found, made whole or in shards, or joined from them."""

    kind = "labels"

    def __init__(self, path: Path, options: SoftlabelsOptions, reporter: Reporter) -> None:
        place = Path(options.out) if options.out else _place(path, options)
        files.require_apart([place], (path, registry.split_path(options.data or "")[1]))
        self.path, self.device = path, options.torch_device()
        self.teacher, self.info = models.load_finite(path, self.device)
        self.threads = options.threads_for(self.info["arch"])
        self.data = location(path, self.info, options.data)
        self.images = data.load_for(
            self.info,
            self.data,
            "train",
            root=options.root,
            image_size=options.image_size,
            test_fraction=options.test_fraction,
            skip_broken=options.skip_broken,
            reporter=reporter,
        )
        self.options, self.reporter = options, reporter
        self.labelling = self._labelling(options.shard)
        super().__init__(place, options.overwrite, reporter)

    def _labelling(self, shard: str | None, *, whole: bool = False) -> Labelling:
        """Return the labelling of this process's part, or of all examples if `whole`."""
        options = self.options
        return Labelling(
            self.teacher,
            self.info,
            self.images,
            views=options.views,
            dtype=options.dtype,
            top_k=options.top_k,
            seed=options.seed,
            batch_size=options.batch_size,
            environment={"device": self.device.type, "threads": self.threads},
            reporter=self.reporter,
            shard=None if whole else shards.chosen(shard),
        )

    def find(self) -> Labels:
        """Return the description of the whole that lies there, checked to be of this work."""
        self.labelling = self._labelling(None, whole=True)
        return self.written(self.place)[0]

    def work(self, out: Path) -> None:
        """Put this process's shard in place, unless it or the whole lies there."""
        self.written(out, self.place)

    def merge(self, paths: Sequence[Path]) -> Labels:
        """Join the shards."""
        return _joined(paths, self.place, self.overwrite, self.reporter)

    def written(self, out: Path, whole: Path | None = None) -> tuple[Labels, bool]:
        """Return the description of the file at `out` and whether it was there already.

        Where the shard is gone because it is merged already, it is that of the `whole`.

        Raises:
            MismatchError: something else lies there.
        """
        if out.exists() and not self.overwrite:
            return self._found(out), True
        with locks.lock(out):
            if out.exists() and not self.overwrite:  # by another call, before we held it
                info = _described(out)
                self._require_same(info, out)
                return info, True
            if whole is not None and whole.exists() and not self.overwrite:
                return _described(whole), True
            checkpoint.tell_unfinished(self.path, self.reporter)
            with computing(self.device, self.threads), signals.resumable():
                return self.labelling.write(out, self._require_teacher), False

    def _require_teacher(self) -> None:
        checkpoint.require_unchanged(self.path, self.info["digest"])

    def _found(self, out: Path) -> Labels:
        """Return the description of what lies there, which needs no lock: the file is whole.

        Raises:
            MismatchError: something else lies there.
        """
        info = _described(out)
        self._require_same(info, out)
        # A kill may have come between writing the file and removing its parts.
        locks.tidy(out, soft_labels.parts_of(out))
        self.reporter.note(f"{out}: already done")
        return info

    def _require_same(self, info: Labels, out: Path) -> None:
        now = identity.of_work(
            self.labelling.config, self.info["digest"], self.images.fingerprint, called="teacher"
        )
        identity.require_same(identity.identity(info, "teacher"), now, out)
        parts = self.labelling.parts
        identity.require_parts(info, parts, out, registry.foreign(parts))


def _described(path: Path) -> Labels:
    """Return the description of a labels file whose digest was checked, its arrays left there."""
    return soft_labels.read_parts(path, soft_labels.LARGE)[1]


def _place(path: Path, options: SoftlabelsOptions) -> Path:
    """Return where the labels go: beside the teacher, under a name that says what they are."""
    words = [f"views-{options.views}"]
    if options.dtype != "float32":
        words.append(options.dtype)
    if options.top_k:
        words.append(f"top{options.top_k}")
    if options.seed:
        words.append(f"s{options.seed}")
    return files.named(path).with_name(f"{path.stem}.labels-{'-'.join(words)}.h5")
