"""Training: one step on one screen, and a loop that can stop and go on at any step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from advkit import data, models, modes, registry, seeding, signals, soft_source
from advkit.artifacts import checkpoint, provenance
from advkit.attacks.pgd import pgd
from advkit.config import Resolved
from advkit.data._batches import Batch, Batches
from advkit.data._images import Images
from advkit.data._split import first, validation
from advkit.errors import InputError, MismatchError, NumericalError, Stopped
from advkit.labels import Context
from advkit.models._tempered import Tempered
from advkit.objectives import Given
from advkit.reporting import Reporter
from advkit.run_folder import RunFolder
from advkit.schedules import learning_rate
from advkit.selection import HeldOut, better
from advkit.settings import Settings
from advkit.threat import Threat, parse_eps, step_size
from advkit.training_state import SEEN, Progress, pack, unpack
from advkit.weights import awp
from advkit.weights.ema import Ema

VAL_SIZE = 1024
PERFECT, FLAT_TARGETS = 0.97, 0.9
"""Training robust accuracy, and target entropy as a share of ln C, above which to be alarmed."""
CHECK_EVERY = 20
"""Steps between looks at the loss on a GPU, where each look waits for the device."""


class Trainer:
    """One run: the student, its average, its optimizer, and the books."""

    def __init__(
        self,
        settings: Settings,
        images: Images,
        *,
        device: torch.device,
        threads: int,
        reporter: Reporter,
    ) -> None:
        self.settings, self.device, self.reporter = settings, device, reporter
        self.soft, self.parents = self._soft_source(images)
        self.environment = {"device": device.type, "threads": threads}
        training, held = split_of(settings, images)
        self.images = images
        self.batches = Batches(
            images, training, settings.batch_size, settings.seed, device,
            table=self.soft.views if self.soft else None,
        )  # fmt: skip
        self.threat = Threat(settings.norm, parse_eps(settings.eps, settings.norm))
        attacked = self.threat if settings.attack_steps > 0 else None
        self.held = HeldOut(images, held, attacked, settings.seed)
        self.classes = len(images.classes)
        self._find_parts()
        self.model = models.build(
            settings.arch,
            self.classes,
            channels=images.shape[0],
            statistics=images.normalisation,
            seed=settings.seed,
            **settings.options_of("models"),
        ).to(device)
        self.student: nn.Module = self.model
        if settings.student_temperature != 1:
            self.student = Tempered(self.model, settings.student_temperature)
        needs_ema = settings.wa or "ema" in self.label_needs
        self.ema = Ema(self.model, settings.ema_decay) if needs_ema else None
        self.optimizer = torch.optim.SGD(
            self.model.parameters(),
            lr=settings.lr,
            momentum=settings.momentum,
            nesterov=settings.nesterov and settings.momentum > 0,
            weight_decay=settings.weight_decay,
        )
        self.progress = Progress()
        self.finite = torch.ones((), dtype=torch.bool, device=device)

    def _soft_source(
        self, images: Images
    ) -> tuple[soft_source.Stored | soft_source.Live | None, list[dict[str, Any]]]:
        """Return the source of soft labels, if any, and the parents of what is trained."""
        settings = self.settings
        data_set = provenance.data_parent(settings.data_name, "train", images.fingerprint)
        if settings.labels != "soft":
            return None, [data_set]
        source, info = soft_source.load(
            settings.soft_labels, settings.teacher, images, self.device, self.reporter
        )
        if settings.labels_digest not in (None, info["digest"]):
            raise MismatchError(
                f"{settings.soft_labels or settings.teacher}: its digest is "
                f"{str(info['digest'])[:19]}, the configuration names {settings.labels_digest}"
            )
        return source, [data_set, provenance.parent(info)]

    def _find_parts(self) -> None:
        settings = self.settings
        self.labels = registry.load("labels", settings.labels)
        self.objective = registry.load("objectives", settings.objective)
        self.label_needs = registry.part("labels", settings.labels).constants.get("NEEDS", ())
        objective = registry.part("objectives", settings.objective)
        self.start = settings.attack_start or objective.constants.get("START", "uniform")
        self.label_options = _arguments(self.labels.targets, settings.options_of("labels"))
        options = settings.options_of("objectives")
        self.inner_options = _arguments(self.objective.inner, options)
        self.outer_options = _arguments(self.objective.outer, options)
        # Where BN moves during the attack, its order counts: clean first, as in ADR's TRADES.
        needs = objective.constants.get("CLEAN_WHEN", {})
        self.clean_first = any(options.get(name) in values for name, values in needs.items())

    def step(self, batch: Batch, epoch: int, step: int) -> None:
        """Train on one batch.

        The order is that of the ADR authors' code: labels come from the teacher as it was
        before this step, the attack sees those labels, and the teacher moves last.
        """
        settings, model = self.settings, self.model
        steps = len(self.batches)
        t, total = epoch * steps + step, settings.epochs * steps
        teacher = self.ema.teacher if self.ema else None
        context = Context(t / total, self.classes, teacher, self.soft)
        with torch.no_grad():
            targets = self.labels.targets(batch, context, **self.label_options)
        model.train()
        given = Given(batch.y, targets, cache(lambda: self._clean(batch.x)))
        x_adv = batch.x
        if settings.attack_steps > 0:
            with modes.attack_bn(model, settings.attack_bn):
                if self.clean_first:
                    given.clean()
                x_adv = self._attacked(batch, given, epoch, step)
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate(t)

        def outer() -> tuple[Tensor, dict[str, Tensor]]:
            found: tuple[Tensor, dict[str, Tensor]] = self.objective.outer(
                self.student, batch.x, x_adv, given, **self.outer_options
            )
            return found

        if settings.awp > 0 and epoch >= settings.awp_warmup:
            loss, seen = self._perturbed_step(outer, epoch, step)
        else:
            loss, seen = outer()
            self._descend(loss, epoch, step)
            self.optimizer.step()
        if self.ema:
            self.ema.update(model)
        self._count(batch, targets, loss, seen)

    def _descend(self, loss: Tensor, epoch: int, step: int) -> None:
        """Refuse a non-finite loss; leave its gradient on the parameters."""
        self._guard(loss, epoch, step)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]

    def _perturbed_step(
        self, outer: Callable[[], tuple[Tensor, dict[str, Tensor]]], epoch: int, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Take one step with adversarial weight perturbation.

        original: the direction comes from a pass that leaves BN alone; the step is taken at the
        perturbed weights, whose pass moves BN. adr: the first pass moves BN and is what metrics
        see; the gradient comes from the perturbed weights, the step is taken after they are back.
        """
        settings, model = self.settings, self.model
        original = settings.awp_form == "original"
        with modes.attack_bn(model, "frozen" if original else "train"):
            loss, seen = outer()
        self._guard(loss, epoch, step)
        found = awp.chosen(model, settings.awp_form)
        gradients = dict(zip(found, torch.autograd.grad(loss, list(found.values())), strict=True))
        with (
            awp.perturbed(model, gradients, settings.awp),
            modes.attack_bn(model, "train" if original else "frozen"),
        ):
            worst, seen_there = outer()
            self._descend(worst, epoch, step)
            if original:
                self.optimizer.step()
        if original:
            return worst, seen_there
        self.optimizer.step()
        return loss, seen

    @torch.no_grad()
    def _clean(self, x: Tensor) -> Tensor:
        """Return clean logits for the attack, in the mode that the attack runs in."""
        logits: Tensor = self.student(x)
        return logits

    def _attacked(self, batch: Batch, given: Given, epoch: int, step: int) -> Tensor:
        settings = self.settings
        return pgd(
            self.student,
            batch.x,
            batch.y,
            self.threat,
            steps=settings.attack_steps,
            step_size=step_size(settings.step_size, self.threat.eps),
            loss=lambda logits, _: self.objective.inner(logits, given, **self.inner_options),
            random_start=self.start,
            generator=seeding.generator(settings.seed, "attack", epoch, step),
        )

    def _rate(self, t: int) -> float:
        """Return the learning rate of iteration t of the whole run."""
        settings, steps = self.settings, len(self.batches)
        return learning_rate(
            settings.lr_schedule, settings.lr, t, steps, settings.epochs, settings.drops
        )

    def _guard(self, loss: Tensor, epoch: int, step: int) -> None:
        """Refuse a non-finite loss before it reaches the weights (on a GPU: soon after).

        Raises:
            NumericalError: naming epoch, step, loss and learning rate.
        """
        self.finite &= torch.isfinite(loss.detach())
        if self.device.type == "cpu" or step % CHECK_EVERY == 0:
            self._require_finite(f"the loss is {loss.item()} at epoch {epoch + 1}, step {step + 1}")

    def _require_finite(self, what: str = "a loss since the last look is not finite") -> None:
        if not bool(self.finite):
            rate = self.optimizer.param_groups[0]["lr"]
            raise NumericalError(
                f"{what}, learning rate {rate:g}: the run diverged; earlier checkpoints are kept; "
                "lower --lr"
            )

    def _count(self, batch: Batch, targets: Tensor, loss: Tensor, seen: Mapping[str, Any]) -> None:
        """Add one batch to the epoch's sums, without waiting for the device."""
        size = len(batch.y)
        hits = [
            (seen[name].argmax(1) == batch.y).sum() if name in seen else loss.new_zeros(())
            for name in SEEN
        ]
        entropy = -torch.special.xlogy(targets, targets).sum()
        counts = loss.new_tensor([size if name in seen else 0 for name in SEEN])
        row = [loss.new_full((), size), loss.detach() * size, entropy, *hits, *counts]
        wide = torch.float32 if self.device.type == "mps" else torch.float64
        self.progress.sums = self.progress.sums.to(self.device, wide)
        self.progress.sums += torch.stack([value.to(wide) for value in row])

    def fit(self, folder: RunFolder) -> None:
        """Train from where `progress` stands to the end, saving on the way.

        Raises:
            Stopped: a signal came; the state was saved at the step boundary.
            NumericalError: the run diverged.
        """
        progress, steps = self.progress, len(self.batches)
        done = progress.epoch * steps + progress.step
        self.reporter.begin("training", self.settings.epochs * steps, done)
        with signals.deferred():
            while progress.epoch < self.settings.epochs:
                started, epoch = time.monotonic(), progress.epoch
                order = self.batches.order(epoch)
                for step in range(progress.step, steps):
                    self.step(self.batches.at(order, epoch, step), epoch, step)
                    progress.step = step + 1
                    self.reporter.advance()
                    self._stop_if_asked(folder)
                self._finish_epoch(folder, started)
        self.reporter.end()

    def _finish_epoch(self, folder: RunFolder, started: float) -> None:
        progress = self.progress
        self._require_finite()
        row = self._averages()
        for role, model in self._candidates():
            figures = self.held.measure(model, lambda: self._stop_if_asked(folder))
            row.update({f"val_{name}{role[4:]}": value for name, value in figures.items()})
            if better(figures, progress.best.get(role)):
                figures = {"epoch": progress.epoch + 1, "n": len(self.held.positions), **figures}
                if progress.alarmed:
                    figures["masking_alarm"] = True
                progress.best[role] = figures
                self.write(folder, role, model, figures)
        seconds = time.monotonic() - started
        row.update(seconds=round(seconds, 3), images_per_second=round(row["n"] / seconds, 1))
        folder.add_row({"epoch": progress.epoch + 1, **row})
        progress.next_epoch()
        self.save(folder)
        self.reporter.advance(0, epoch=f"{progress.epoch}/{self.settings.epochs}", **row)
        self._stop_if_asked(folder)

    def _averages(self) -> dict[str, Any]:
        sums = self.progress.figures()
        n = max(sums["n"], 1)
        row = {
            "n": int(sums["n"]),
            "lr": self._rate((self.progress.epoch + 1) * len(self.batches) - 1),
            "loss": sums["loss"] / n,
            "target_entropy": sums["entropy"] / n,
        }
        for name, word in zip(SEEN, ("clean", "robust"), strict=True):
            if sums[f"{name}_n"] > 0:
                row[f"train_{word}_accuracy"] = sums[name] / sums[f"{name}_n"]
        self._alarm(row)
        return row

    def _alarm(self, row: dict[str, Any]) -> None:
        """Tell of LTD's masking signature: near-perfect robustness on near-uniform targets.

        Source: LTD, section 5.4: robust training accuracy near 100 % while AutoAttack reaches 0.
        """
        flat = row["target_entropy"] > FLAT_TARGETS * math.log(self.classes)
        robust = row.get("train_robust_accuracy", 0.0)
        if self.settings.attack_steps > 0 and robust > PERFECT and flat:
            row["masking_alarm"] = True
            if not self.progress.alarmed:
                self.reporter.warn(
                    f"training robust accuracy {robust:.3f} on nearly uniform targets (entropy "
                    f"{row['target_entropy']:.2f} of {math.log(self.classes):.2f}): gradients may "
                    "be masked; do not trust PGD"
                )
            self.progress.alarmed = True

    def _candidates(self) -> list[tuple[str, nn.Module]]:
        found: list[tuple[str, nn.Module]] = [("best", self.model)]
        if self.settings.wa and self.ema:
            found.append(("best-ema", self.ema.model))
        return found

    def _stop_if_asked(self, folder: RunFolder) -> None:
        signum = signals.pending()
        if signum is not None:
            self.save(folder)
            where = f"epoch {self.progress.epoch + 1}, step {self.progress.step}"
            raise Stopped(signum, f"stopped at {where}, state saved: go on with --resume")

    def describe(self, kind: str, **more: Any) -> dict[str, Any]:
        """Return the description of an artifact of this run."""
        settings, images = self.settings, self.images
        mean, std = images.normalisation
        return provenance.describe(
            kind,
            config=settings.described(),
            seed=settings.seed,
            parents=self.parents,
            environment=self.environment,
            method=settings.method,
            arch=settings.arch,
            data={"name": settings.data_name, "classes": list(images.classes)},
            model={
                "arch": settings.arch,
                "options": settings.options_of("models"),
                "input_shape": list(images.shape),
                "mean": list(mean),
                "std": list(std),
            },
            **more,
        )

    def write(
        self, folder: RunFolder, role: str, model: nn.Module, metrics: Mapping[str, Any]
    ) -> None:
        """Write one checkpoint of the run.

        Raises:
            NumericalError: a tensor is not finite.
        """
        tensors = model.state_dict()
        for name, tensor in tensors.items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise NumericalError(f"{name} is not finite: nothing is written; lower --lr")
        description = self.describe("checkpoint", role=role, metrics=dict(metrics))
        checkpoint.write(folder.checkpoint(role), tensors, description)

    def finish(self, folder: RunFolder) -> None:
        """Write the last weights; the student's come last, as the mark of a finished run."""
        rows = folder.rows()
        names = ("clean_accuracy", "robust_accuracy")

        def metrics(suffix: str) -> dict[str, Any]:
            found = {name: rows[-1].get(f"val_{name}{suffix}") for name in names}
            kept = {name: value for name, value in found.items() if value is not None}
            alarm = {"masking_alarm": True} if self.progress.alarmed else {}
            return {"epoch": self.settings.epochs, "n": len(self.held.positions), **kept, **alarm}

        if self.ema:
            self.write(folder, "final-ema", self.ema.model, metrics("-ema"))
        self.write(folder, "final", self.model, metrics(""))
        folder.state_file.unlink(missing_ok=True)

    def save(self, folder: RunFolder) -> None:
        """Write everything that a resumed run needs.

        Raises:
            NumericalError: the run diverged since the loss was last looked at.
        """
        self._require_finite()
        progress = self.progress
        tensors = pack(self.model, self._average(), self.optimizer, progress)
        description = self.describe(
            "state", epoch=progress.epoch, step=progress.step, best=progress.best,
            alarmed=progress.alarmed,
        )  # fmt: skip
        checkpoint.write(folder.state_file, tensors, description)

    def _average(self) -> nn.Module | None:
        return self.ema.model if self.ema else None

    def restore(self, folder: RunFolder) -> None:
        """Go back to the saved state.

        Raises:
            InputError: the state file is corrupt.
            MismatchError: it was made from other data.
        """
        tensors, info = checkpoint.read(folder.state_file, "state")
        begun, now = ([each["digest"] for each in of] for of in (info["parents"], self.parents))
        if begun != now:
            raise MismatchError(
                f"{folder.path}: training data or soft labels changed since this run began"
            )
        if info["environment"] != self.environment:
            self.reporter.warn(
                f"resumed on {self.environment}, begun on {info['environment']}: "
                "rounding may differ from an uninterrupted run"
            )
        try:
            sums = unpack(tensors, self.model, self._average(), self.optimizer)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"{folder.state_file}: does not fit: {reason}") from None
        self.progress = Progress(info["epoch"], info["step"], info["best"], sums, info["alarmed"])
        folder.keep_rows(info["epoch"])


def train(
    resolved: Resolved,
    folder: RunFolder,
    *,
    device: torch.device,
    threads: int,
    data_root: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    reporter: Reporter | None = None,
) -> bool:
    """Train one run in its folder; return False if it was already done.

    Raises:
        UsageError, InputError, MismatchError, NumericalError, StorageError, BusyError, Stopped:
            see `errors`; whatever happens, files under their final names are whole.
    """
    settings, reporter = resolved.settings, reporter or Reporter()
    torch.set_num_threads(threads)
    with folder.held():
        folder.require_fit(resolved, resume=resume, overwrite=overwrite)
        if folder.done and not overwrite:
            return False
        try:
            images = data.load(
                settings.data, "train", root=data_root, **settings.options_of("data")
            )
            trainer = Trainer(settings, images, device=device, threads=threads, reporter=reporter)
        except BaseException:
            folder.forget_if_empty()
            raise
        folder.begin(resolved, overwrite=overwrite)
        if folder.state_file.exists():
            trainer.restore(folder)
        else:
            folder.keep_rows(0)
        trainer.fit(folder)
        trainer.finish(folder)
    return True


def split_of(settings: Settings, images: Images) -> tuple[Tensor, Tensor]:
    """Return the positions of the training and of the held-out examples, each sorted."""
    kept = first(images.labels, settings.limit)
    size = settings.val_size
    if size is None:
        size = min(VAL_SIZE, len(kept) // 5)
    training, held = validation(images.labels[kept], size, settings.split_seed)
    return kept[training], kept[held]


def _arguments(function: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Pick the options that a function declares, under its own spelling (`lambda_`)."""
    declared = function.__kwdefaults__ or {}
    return {name: options[name.rstrip("_")] for name in declared if name.rstrip("_") in options}
