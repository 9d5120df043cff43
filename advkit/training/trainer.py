"""One run in memory: the data, the learner and the loop over epochs."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import closing

import torch
from torch import Tensor, nn

from advkit import registry
from advkit.artifacts import checkpoint, provenance
from advkit.artifacts.descriptions import ALARMS, Beside, Metrics
from advkit.config.settings import Settings
from advkit.errors import Stopped
from advkit.formulas.schedules import parse_span
from advkit.images import ahead
from advkit.images.batches import Batch, Batches
from advkit.images.image_set import ImageSet
from advkit.parallel.world import World
from advkit.runtime import signals
from advkit.runtime.reporting import Reporter
from advkit.training import alarms, books, metrics_log, sources
from advkit.training import initial as start
from advkit.training import teachers as asked
from advkit.training.checkpoints import RunFiles
from advkit.training.learner import Learner
from advkit.training.metrics_log import Row
from advkit.training.mirrors import Mirrors
from advkit.training.parts import augmentation_of
from advkit.training.run_folder import RunFolder
from advkit.training.selection import (
    ACCURACIES,
    JUDGED,
    MEASURED,
    Measured,
    Validation,
    better,
    validation_of,
)
from advkit.training.state import Progress
from advkit.training.watching import Watching

Chosen = Mapping[str, tuple[nn.Module, Metrics]]
"""Role → the net that was better than the ones before it, and its figures."""


class Trainer:
    """One run: what it learns from, what learns, and the books."""

    def __init__(
        self,
        settings: Settings,
        images: ImageSet,
        *,
        device: torch.device,
        threads: int,
        reporter: Reporter,
        world: World | None = None,
    ) -> None:
        self.settings, self.device, self.reporter = settings, device, reporter
        self.world = world or World()
        self.images = images
        source = provenance.data_parent(settings.data_name, "train", images.fingerprint, images.how)
        self.soft, labels, live = sources.soft_labels(settings, images, device, reporter)
        extra, more = sources.extra_images(settings, images)
        teachers = asked.load(settings, images, device)
        more = [*more, *(teacher.parent(role) for role, teacher in teachers.items())]
        asked.tell_robust(teachers, reporter)
        initial = start.load(settings, images)
        begun = [] if initial is None else [initial.parent]
        if initial is not None:
            start.tell_split(initial, settings, reporter)
        self.files = RunFiles(
            settings,
            images,
            [source, *labels, *more, *begun],
            {"device": device.type, "threads": threads},
            self.world,
            statistics=initial.statistics if initial else None,
        )
        training, held_out = sources.split_of(settings, images)
        sources.require_a_batch(settings, images, len(training), len(held_out))
        augmentation = augmentation_of(settings)
        self.batches = Batches(
            images,
            training,
            settings.batch_size,
            settings.seed,
            device,
            # Crops come from the labels' own views: others would have no label.
            table=self.soft.views if self.soft else None,
            extra=extra,
            workers=ahead.workers(settings.workers, images, augmentation, device),
            rank=self.world.rank,
            world=self.world.size,
            keep=settings.last_batch == "keep",
            augmentation=augmentation,
            epochs=settings.epochs,
        )
        if self.batches.rest and not self.batches.keep:
            reporter.note(
                f"{self.batches.rest} of {len(training)} training images are left out of every "
                f"epoch, others each time: they fill no batch of {self.batches.own}; "
                "--last-batch keep trains on them too"
            )
        self.learner = Learner(
            settings,
            images,
            len(self.batches),
            device,
            self.soft,
            self.world,
            initial,
            {role: teacher.net for role, teacher in teachers.items()},
        )
        self.learner.require_images(images.shape, self.batches.fewest)
        self.validation = validation_of(settings, images, held_out, self.learner.threat, self.world)
        average = self.learner.average if self.learner.parts.needs_ema else None
        self.watching = Watching(
            self.validation, {**live, **teachers}, self.learner.passes_of, average
        )
        self.classes = len(images.classes)
        self.progress = Progress()
        self.mirrors = Mirrors()
        _tell_late(settings, reporter)
        _tell_drops(settings, reporter)

    def step(self, batch: Batch, epoch: int, step: int) -> None:
        """Train on one batch and count what it gave."""
        output = self.learner.learn(batch, epoch, step)
        self.progress.sums = books.add(self.progress.sums, output, batch.y)

    def fit(self, folder: RunFolder, until: int | None = None) -> None:
        """Train from where `progress` stands to the end, saving on the way.

        Args:
            folder: where the run lies.
            until: stop after so many epochs of the run, its state saved to go on from; schedules
                are those of the whole run all the same.

        Raises:
            Stopped: a signal came; the state was saved at the step boundary.
            NumericalError: the run diverged.
        """
        progress, steps = self.progress, len(self.batches)
        last = min(self.settings.epochs, until or self.settings.epochs)
        # A run may go on amid an epoch, whose order is a function of seed and epoch.
        done = progress.epoch * steps + progress.step
        # Counted in steps of the whole run, so that a resumed one shows where it stands.
        self.reporter.begin("training", last * steps, done)
        # A signal waits for the end of a step: only there is the state whole.
        with closing(self.batches), signals.deferred():
            while progress.epoch < last:
                started, epoch, begin = time.monotonic(), progress.epoch, progress.step
                self.reporter.inside(self._where)
                for step, batch in enumerate(self.batches.epoch(epoch, begin), begin):
                    self.step(batch, epoch, step)
                    progress.step = step + 1
                    self.reporter.advance()
                    self._stop_if_asked(folder)
                self._finish_epoch(folder, started, begin)
        self.reporter.end()

    def _finish_epoch(self, folder: RunFolder, started: float, begin: int) -> None:
        progress = self.progress
        # On a GPU the last looks at the loss may be some steps old: nothing is selected before.
        self.learner.guard.agree()
        # From here on the sums are the world's and lie on rank 0: added again they stay the same.
        progress.sums = self.world.sum(progress.sums.to(self.device))
        if not self.world.leads:
            progress.sums = torch.zeros_like(progress.sums)
        # The same whenever it is done: a run that stops in its validation does it again.
        self.learner.settle(self._told("statistics of the average"), progress.epoch + 1)
        row, chosen, measured = self._row(), {}, []
        last = progress.epoch + 1 == self.settings.epochs
        validation = self.validation.closing if last else self.validation

        def between() -> None:
            self._stop_if_asked(folder)

        for role, model in self._candidates():
            figures = self._measured(folder, role, model, validation)
            suffix = role.removeprefix("best")
            if validation is not self.validation and "margin_accuracy" in figures:
                # Under a name of its own: it did not choose.
                row[f"{alarms.CLOSING}{suffix}"] = figures.pop("margin_accuracy")
            row |= {f"val_{key}{suffix}": figures[key] for key in MEASURED if key in figures}
            measured.append((role, model, suffix, figures))
        row |= self.watching.measure(self._earlier_rows(), row, last, between)
        self._watch(row)
        for role, model, suffix, figures in measured:
            if better(figures, progress.best.get(role)):
                chosen[role] = model, self._metrics(progress.epoch + 1, row, suffix)
        seconds = time.monotonic() - started
        # Of an epoch that was gone on with, both are of what came since.
        images = row["n"] * (1 - begin / len(self.batches))
        row.update(seconds=round(seconds, 3), images_per_second=round(images / seconds, 1))
        self._write_epoch(folder, row, chosen)
        # Last: a mirror shows what is safely there.
        self.mirrors.add({"epoch": progress.epoch, **row})
        self.reporter.inside("")
        self.reporter.advance(0, epoch=f"{progress.epoch}/{self.settings.epochs}", **row)
        self._stop_if_asked(folder)

    def _told(self, what: str) -> Iterator[Tensor]:
        """Yield the epoch's images once more, telling how far that is."""
        for done, batch in enumerate(self.batches.epoch(self.progress.epoch), 1):
            yield batch.x
            self.reporter.inside(f"{self._where} {what}", len(self.batches), done)

    @property
    def _where(self) -> str:
        return f"epoch {self.progress.epoch + 1}/{self.settings.epochs}"

    def _measured(
        self, folder: RunFolder, role: str, model: nn.Module, validation: Validation
    ) -> Measured:
        """Measure a net on the validation split, telling how far that is."""
        of = " of the average" if role.endswith("-ema") else ""
        what, batches = f"{self._where} {validation.what}{of}", len(validation.starts)
        finished = itertools.count(1)
        self.reporter.inside(what, batches)

        def between() -> None:
            # Several processes share the batches and tell of the end alone.
            self.reporter.inside(what, batches, next(finished) if self.world.alone else batches)
            self._stop_if_asked(folder)

        return validation.measure(self.learner.passes_of(model), between)

    def _write_epoch(self, folder: RunFolder, row: Row, chosen: Chosen) -> None:
        """Write what came of an epoch: the state, then what can be made from it."""
        progress, packed = self.progress, {}
        for role, (model, metrics) in chosen.items():
            progress.best[role] = metrics
            if self.world.leads:
                packed[role] = self.files.packed(role, model, metrics)
                progress.written[role] = packed[role].digest
        line = json.dumps({"epoch": progress.epoch + 1, **row}, allow_nan=False)
        progress.lines.append(line)
        progress.next_epoch()
        # First, for it knows what is to lie beside it: nothing else there is believed afterwards,
        # and what a kill leaves unwritten is made from it, see `RunFiles.restore`.
        self.files.save(folder, self.learner, progress)
        if self.world.leads:
            for role, content in packed.items():
                checkpoint.put(folder.checkpoint(role), content)
            folder.add_line(line)

    def _row(self) -> Row:
        """Return the epoch's row so far, and raise the alarm of masking where it is due."""
        last = (self.progress.epoch + 1) * len(self.batches) - 1
        averages = books.averages(self.progress.sums)
        row = {"n": averages.pop("n"), "lr": self.learner.rate(last), **averages}
        alarm = alarms.masking(row, self.classes) if self.settings.attack_steps > 0 else None
        if alarm is not None:
            row["masking_alarm"] = True
            if not self.progress.alarmed:
                self.reporter.warn(alarm)
            self.progress.alarmed = True
        return row

    def _watch(self, row: Row) -> None:
        """Raise the alarms that are due, mark the row with them, and tell each of them once."""
        before = self._earlier_rows()
        rows, n = [*before, row], len(self.validation.positions)
        for name, text in alarms.raised(rows, n, self.classes, self.watching.roles).items():
            row[name] = True
            if not any(name in earlier for earlier in before):
                self.reporter.warn(text)

    def _earlier_rows(self) -> list[Row]:
        # The log is part of the state, so that a resumed run knows what it has told.
        return [json.loads(line) for line in self.progress.lines]

    def _candidates(self) -> list[tuple[str, nn.Module]]:
        candidates: list[tuple[str, nn.Module]] = [("best", self.learner.model)]
        swa = self.learner.swa
        # Before its first epoch an even average is the student itself.
        begun = swa is None or self.progress.epoch + 1 >= swa.start
        if self.settings.wa and self.learner.average is not None and begun:
            candidates.append(("best-ema", self.learner.average))
        return candidates

    def _stop_if_asked(self, folder: RunFolder) -> None:
        # Torchrun's signal reaches the ranks at different steps: they stop at the same one.
        signum = self.world.most(signals.pending() or 0)
        if signum:
            self.files.save(folder, self.learner, self.progress)
            where = f"epoch {self.progress.epoch + 1}, step {self.progress.step}"
            raise Stopped(signum, f"stopped at {where}, state saved: go on with --resume")

    def finish(self, folder: RunFolder) -> None:
        """Write the last weights; the student's come last, as the mark of a finished run.

        They say what lies beside them: the other checkpoints, and the log but for its times.
        """
        if not self.world.leads:
            return
        progress, epochs = self.progress, self.settings.epochs
        rows = metrics_log.rows(progress.lines, folder.metrics_file)
        if self.learner.average is not None:
            metrics = self._metrics(epochs, rows[-1], "-ema")
            last = self.files.packed("final-ema", self.learner.average, metrics)
            progress.written["final-ema"] = checkpoint.put(folder.checkpoint("final-ema"), last)
        beside: Beside = {"checkpoints": progress.written, "log": metrics_log.digest(rows)}
        metrics = self._metrics(epochs, rows[-1], "")
        mark = self.files.packed("final", self.learner.model, metrics, beside)
        checkpoint.put(folder.checkpoint("final"), mark)
        folder.state_file.unlink(missing_ok=True)

    def _metrics(self, epoch: int, row: Row, suffix: str) -> Metrics:
        """Return what a checkpoint says of the student, or its average, by an epoch's row."""
        metrics: Metrics = {"epoch": epoch, "n": len(self.validation.positions)}
        for key in (*ACCURACIES, *JUDGED):
            if f"val_{key}{suffix}" in row:
                metrics[key] = row[f"val_{key}{suffix}"]
        if self.progress.alarmed:
            metrics["masking_alarm"] = True
        rows = (*self._earlier_rows(), row)
        for name in ALARMS:
            if any(name in one for one in rows):
                metrics[name] = True
        return metrics

    def restore(self, folder: RunFolder, elastic: bool = False) -> None:
        """Go back to the saved state.

        Raises:
            InputError: the state file is corrupt.
            MismatchError: it was made from other data.
        """
        self.progress = self.files.restore(folder, self.learner, self.reporter, elastic)


def _tell_drops(settings: Settings, reporter: Reporter) -> None:
    """Warn of falls of the learning rate that come after the last epoch."""
    drops, epochs = settings.drops, settings.epochs
    if settings.lr_schedule != "multistep" or not settings.lr_drops:
        return
    if min(drops) >= epochs:
        end = "the learning rate never falls"
    elif max(drops) > epochs:
        end = f"it does not fall there (by default it would at {epochs // 2},{epochs * 3 // 4})"
    else:
        return
    late = ",".join(str(drop) for drop in drops if drop >= epochs)
    reporter.warn(f"--lr-drops {late} come after --epochs {epochs}: {end}")


def _tell_late(settings: Settings, reporter: Reporter) -> None:
    """Warn of a part of the objective that begins only after the last epoch."""
    options = settings.options_of("objectives")
    begins = registry.part("objectives", settings.objective).constants.get("BEGINS", ())
    for name in begins:
        first = parse_span(str(options[name]))[0]
        if first > settings.epochs:
            reporter.warn(
                f"--{name.replace('_', '-')} {options[name]} begins after --epochs "
                f"{settings.epochs}: what makes {settings.objective} is never used"
            )
    if settings.warmup > settings.epochs:
        reporter.warn(
            f"--warmup-epochs {settings.warmup:g} is more than --epochs {settings.epochs}: the "
            "learning rate never reaches --lr"
        )
    if settings.awp and settings.awp_warmup > settings.epochs:
        reporter.warn(
            f"--awp-warmup {settings.awp_warmup} ends after --epochs {settings.epochs}: weights "
            "are never perturbed"
        )
