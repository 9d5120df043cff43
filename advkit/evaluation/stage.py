"""The stage that attacks a checkpoint: logits and verdicts in a file, made or found there."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from advkit import data, models, registry
from advkit.artifacts import checkpoint, files, hdf5, identity, locks, sharing
from advkit.artifacts import record as records
from advkit.artifacts.descriptions import Checkpoint, Settings
from advkit.artifacts.hdf5 import Logits
from advkit.artifacts.record import Record
from advkit.config.location import elsewhere, location
from advkit.config.machine import computing
from advkit.errors import InputError
from advkit.evaluation import classes, merge, partial, passes, remarks
from advkit.evaluation.options import AttackOptions
from advkit.evaluation.passes import Surrogate
from advkit.evaluation.run import Evaluation
from advkit.evaluation.settings import AttackSettings
from advkit.evaluation.verdicts import figures
from advkit.images.image_set import ImageSet
from advkit.parallel import shards
from advkit.runtime import signals
from advkit.runtime.reporting import Reporter


@dataclass(frozen=True)
class Evaluated:
    """A logits file in place, and the checkpoint that it judges, None where nobody knows it."""

    logits: Logits
    path: Path
    checkpoint: Path | None
    seconds: float

    @property
    def record(self) -> Record:
        """What the stage prints of it."""
        info = self.logits.info
        return records.make(
            "logits",
            self.path,
            info["digest"],
            **sharing.origin(self.checkpoint, self.path),
            data=info["data"]["name"],
            arch=info["arch"],
            method=info["method"],
            role=info["role"],
            seed=info["parents"][0]["seed"],
            attack_seed=info["seed"],
            **figures(self.logits),
            **sharing.named(info),
            seconds=self.seconds,
        )


def evaluate(
    path: Path, options: AttackOptions, reporter: Reporter | None = None
) -> Evaluated | None:
    """Attack a checkpoint and write its logits, or find them where they were written before.

    Under torchrun the processes share the work, and rank 0 alone returns it.

    Raises:
        AdvkitError: see `errors`; finished batches are kept and gone on from.
    """
    started = time.monotonic()
    settings, info = settings_of(path, options)
    place = Path(options.out) if options.out else _place(path, settings, info, options)
    hdf5.require_name(place)
    work = EvaluationWork(path, info["digest"], settings, options, place, reporter or Reporter())
    if not shards.launched(options.shard):
        out = settings.shard.beside(place) if settings.shard else place
        logits, seconds = work.made(out)
        return Evaluated(logits, out, path, seconds)
    shared = sharing.together(work)
    if shared is None:
        return None
    logits, done = shared
    seconds = 0.0 if done else round(time.monotonic() - started, 3)
    return Evaluated(logits, place, path, seconds)


def join(
    sources: Sequence[Record], out: Path, *, overwrite: bool = False, reporter: Reporter
) -> Evaluated:
    """Join the shards of one evaluation, or find the whole in its place.

    Raises:
        MismatchError: not all shards of one evaluation, or something else lies there.
    """
    hdf5.require_name(out)
    started = time.monotonic()
    paths = [Path(record["path"]) for record in sources]
    files.require_apart([out], paths)
    with locks.unless(out.exists() and not overwrite, out):
        logits = _joined(paths, out, overwrite, reporter)
    made_from = sharing.parent_file(sources, logits.info)
    return Evaluated(logits, out, made_from, round(time.monotonic() - started, 3))


def _joined(paths: Sequence[Path], out: Path, overwrite: bool, reporter: Reporter) -> Logits:
    if out.exists() and not overwrite:
        logits = hdf5.read_logits(out)
        sharing.require_whole(logits.info, paths, out)
        reporter.note(f"{out}: already done")
        return logits
    logits = merge.logits(paths)
    remarks.of_merged(logits, reporter)
    digest = hdf5.write_logits(out, logits)
    return dataclasses.replace(logits, info={**logits.info, "digest": digest}, path=str(out))


def settings_of(path: Path, options: AttackOptions) -> tuple[AttackSettings, Checkpoint]:
    """Return what an evaluation of a checkpoint is, and the checkpoint's description.

    Raises:
        InputError: no checkpoint.
        UsageError: options that do not go with it.
    """
    info = checkpoint.read_info(path)
    own, surrogate = options.own(), options.surrogate
    norm, eps = _threat(options, info["config"])
    settings = AttackSettings(
        attack=options.name,
        norm=norm,
        eps=eps,
        data=location(path, info, options.data),
        seed=options.seed,
        batch_size=options.batch_size,
        version=options.version or "standard",
        limit=options.limit,
        save_images=options.save_images,
        options=own,
        surrogate=checkpoint.read_info(surrogate)["digest"] if surrogate else None,
        shard=shards.chosen(options.shard),
    )
    settings.threat  # noqa: B018  (refuses an impossible ε before any work)
    return settings, info


def _threat(options: AttackOptions, trained: Settings) -> tuple[str, str]:
    """Return norm and ε; without an attack they are not looked at, and may be unknown."""
    if options.name == "none":
        return trained["norm"] or "linf", trained["eps"] or "8/255"
    return options.against(trained)


def _place(path: Path, settings: AttackSettings, info: Checkpoint, options: AttackOptions) -> Path:
    """Return where the logits go: beside the checkpoint, under a name that says what they are."""
    name, where = registry.split_path(settings.data)
    # Data sets of one reader differ by their place: `folder:a` and `folder:b` are both `folder`.
    same = name == info["data"]["name"] and not elsewhere(path, info, settings.data, options.root)
    other = "" if same else f"-on-{name}"
    if other and where:
        other += f"-{Path(where).resolve().name}"
    if options.image_list:
        other += f"-{Path(options.image_list).stem}"
    for word in (options.corruption, options.severity):
        other += f"-{word}" if word else ""
    return files.named(path).with_name(f"{path.stem}.{settings.file_stem}{other}.h5")


class EvaluationWork(sharing.ShardedWork[Logits]):
    """One evaluation as a file: found, made whole or in shards, or joined from them."""

    kind = "logits"

    def __init__(
        self,
        path: Path,
        digest: str,
        settings: AttackSettings,
        options: AttackOptions,
        place: Path,
        reporter: Reporter,
    ) -> None:
        super().__init__(place, options.overwrite, reporter)
        # The settings are that checkpoint's: another one may have taken its place since.
        self.path, self.digest, self.settings, self.options = path, digest, settings, options

    def find(self) -> Logits:
        """Return the whole that lies there, checked to be of this evaluation."""
        settings = dataclasses.replace(self.settings, shard=None)
        whole = EvaluationWork(
            self.path, self.digest, settings, self.options, self.place, self.reporter
        )
        return whole.made(self.place)[0]

    def work(self, out: Path) -> None:
        """Put this process's shard in place, unless it or the whole lies there."""
        self.made(out, self.place)

    def merge(self, paths: Sequence[Path]) -> Logits:
        """Join the shards."""
        return _joined(paths, self.place, self.overwrite, self.reporter)

    def made(self, out: Path, whole: Path | None = None) -> tuple[Logits, float]:
        """Return the logits in place at `out`, made now or found there, and the seconds it took.

        Where the shard is gone because it is merged already, they are those of the `whole`.

        Raises:
            MismatchError: something else lies there, or the checkpoint was replaced meanwhile.
        """
        hdf5.require_name(out)
        files.require_apart((out, self.place), self._inputs())
        if out.exists() and not self.overwrite:
            return self._found(out), 0.0
        unfinished = _unfinished(out)
        with locks.lock(out):
            model, info = models.load_finite(self.path, self.options.torch_device())
            if info["digest"] != self.digest:
                raise checkpoint.replaced(self.path)
            images = self._images(info)
            if out.exists() and not self.overwrite:  # by another call, before we held it
                return self._require_same(out, info, images.fingerprint), 0.0
            if whole is not None and whole.exists() and not self.overwrite:
                return hdf5.read_logits(whole), 0.0
            surrogate = self._surrogate()
            checkpoint.tell_unfinished(self.path, self.reporter)
            started = time.monotonic()
            result = self._run(model, info, images, surrogate, unfinished)
            checkpoint.require_unchanged(self.path, self.digest)
            # Written first: a kill between the two leaves batches that the next call removes.
            hdf5.write_logits(out, result)
            partial.remove(unfinished)
            return hdf5.read_logits(out), round(time.monotonic() - started, 3)

    def _surrogate(self) -> Surrogate | None:
        path = self.options.surrogate
        if not path:
            return None
        return Surrogate(*models.load_finite(path, self.options.torch_device()))

    def _inputs(self) -> Sequence[str | Path | None]:
        """Return the files that the evaluation reads."""
        where = registry.split_path(self.settings.data)[1]
        return (self.path, self.options.surrogate, self.options.image_list, where)

    def _found(self, out: Path) -> Logits:
        """Return the logits that lie there, which needs no lock: the file is whole.

        Raises:
            MismatchError: something else lies there.
        """
        _, info = models.load_finite(self.path, self.options.torch_device())
        if info["digest"] != self.digest:
            raise checkpoint.replaced(self.path)
        logits = self._require_same(out, info, self._images(info).fingerprint)
        # A kill may have come between writing the file and removing these.
        locks.tidy(out, *partial.files_of(_unfinished(out)))
        self.reporter.note(f"{out}: already done")
        return logits

    def _images(self, info: Checkpoint) -> ImageSet:
        options = self.options
        return data.load_for(
            info,
            self.settings.data,
            "test",
            root=options.root,
            image_size=options.image_size,
            image_list=options.image_list,
            corruption=options.corruption,
            severity=options.severity,
            test_fraction=options.test_fraction,
            skip_broken=options.skip_broken,
            reporter=self.reporter,
        )

    def _run(
        self,
        model: nn.Module,
        info: Checkpoint,
        images: ImageSet,
        surrogate: Surrogate | None,
        unfinished: Path,
    ) -> Logits:
        device, threads = self.options.torch_device(), self.options.threads_for(info["arch"])
        with computing(device, threads), signals.resumable():
            evaluation = Evaluation(
                model,
                info,
                images,
                self.settings,
                environment={"device": device.type, "threads": threads},
                reporter=self.reporter,
                surrogate=surrogate,
                other=self._another(info, images),
            )
            return evaluation.run(unfinished)

    def _another(self, info: Checkpoint, images: ImageSet) -> bool:
        """Say whether the images are of another set than the model was trained on.

        Two sets of one reader differ by their training splits. A test set alone has none; it is
        taken for the model's.
        """
        if images.name != info["data"]["name"]:
            return True
        matters = self.settings.attack == "none" and classes.mere_numbers(images.classes)
        place, root = self.settings.data, self.options.root
        if not matters or elsewhere(self.path, info, place, root) is False:
            return False
        own = {parent["digest"] for parent in info["parents"] if parent["kind"] == "data"}
        try:
            training = data.load_for(info, place, "train", root=root).fingerprint
        except InputError:
            return False
        return bool(own) and training not in own  # an imported net has no parents

    def _require_same(self, out: Path, info: Checkpoint, images: str) -> Logits:
        """Return the file that lies there, if the same work made it.

        Raises:
            MismatchError: other work did; the message says what differs.
        """
        logits = hdf5.read_logits(out)
        package = passes.implementation(self.settings, len(info["data"]["classes"]))
        now = identity.of_work(
            self.settings.described(), info["digest"], images, package.get("implementation")
        )
        identity.require_same(identity.identity(logits.info), now, out)
        classes = len(info["data"]["classes"])
        parts = passes.parts(self.settings, classes, info)
        identity.require_parts(logits.info, parts, out, registry.foreign(parts))
        return logits


def _unfinished(out: Path) -> Path:
    return out.with_name(f"{out.name}.part")
