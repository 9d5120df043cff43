"""What learns: the student, its average, its optimizer, and one step of training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from advkit import models
from advkit.config.settings import Settings
from advkit.errors import UsageError
from advkit.images.batches import Batch
from advkit.images.image_set import ImageSet
from advkit.labels import Context
from advkit.objectives import REMEMBERED, Given
from advkit.parallel.world import World
from advkit.runtime import modes, precision, seeding
from advkit.runtime.tempered import Tempered
from advkit.softlabels.source import Live
from advkit.training import alignment, optimizer, rates, remembering, student
from advkit.training.guard import Guard, require_applicable
from advkit.training.initial import Initial
from advkit.training.inner_attack import InnerAttack, Still
from advkit.training.parts import parts_of
from advkit.weights import awp, swa
from advkit.weights.ema import Ema
from advkit.weights.swa import Swa

Objective = Callable[[nn.Module], tuple[Tensor, dict[str, Tensor]]]
"""From a net to the loss on this step's images, and the detached logits by kind."""
Penalty = Callable[[nn.Module], Tensor]
"""From a net to what is added to its loss."""


@dataclass(frozen=True)
class StepOutput:
    """What one step gives: the target rows (B, C), the loss, and the logits (B, C) by kind.

    `still` (B,) are the examples whose attack had no gradient at any step; None without an attack.
    """

    targets: Tensor
    loss: Tensor
    logits: Mapping[str, Tensor]
    still: Tensor | None = None


class Learner:
    """A student with everything that changes while it learns.

    `steps` is the number of iterations of an epoch, which schedules count in. In a world of several
    processes, attacks and ADR's teacher run on the bare net and touch nobody else; one backward
    pass averages gradients, and BN's statistics are averaged before the EMA sees them. `teachers`
    are the fixed nets that the objective asks, by role.
    """

    def __init__(
        self,
        settings: Settings,
        images: ImageSet,
        steps: int,
        device: torch.device,
        soft: Callable[[Batch], Tensor] | None = None,
        world: World | None = None,
        initial: Initial | None = None,
        teachers: Mapping[str, nn.Module] | None = None,
    ) -> None:
        self.settings, self.steps, self.device, self.soft = settings, steps, device, soft
        self.world = world or World()
        self.classes = len(images.classes)
        # Where a step draws what is as large as images or weights.
        self.drawing = device if settings.noise == "device" else torch.device("cpu")
        self.parts = parts_of(settings)
        self.attack = InnerAttack(settings, self.parts.start)
        self.threat = self.attack.threat
        self.rate, self.momentum = rates.of(settings, steps)
        require_applicable(settings, device, self.world)
        self.model = student.built(settings, images, device, initial)
        self.student: nn.Module = self.model
        if settings.student_temperature != 1:
            self.student = Tempered(self.model, settings.student_temperature)
        # `passes` computes as the run does; `shared` also averages gradients over ranks.
        self.passes = self._computed(self.student)
        self.shared = self.world.wrapped(self.passes)
        if settings.amp and isinstance(soft, Live):
            soft.teacher = self.passes_of(soft.teacher)
        self.taught = {role: self._computed(net) for role, net in (teachers or {}).items()}
        self.memory = remembering.begun(self.parts, images.labels, self.classes, device)
        # One average serves both uses: ADR's teacher is the weight average that `--wa` reports.
        needs_ema = settings.wa or self.parts.needs_ema
        self.ema: Ema | None = None
        self.swa: Swa | None = None
        if settings.swa_start is not None:
            self.swa = Swa(self.model, settings.swa_start)
        elif needs_ema:
            warmup = settings.ema_warmup
            self.ema = Ema(
                self.model,
                settings.ema_decay,
                warmup=None if warmup is None else round(warmup * steps),
                own_norms=settings.ema_norms == "average",
            )
        self.teacher = self.passes_of(self.ema.model) if self.ema else None
        self.optimizer = optimizer.built(self.model, settings, device)
        self.guard = Guard(self.optimizer, device, self.world)

    def require_images(self, shape: tuple[int, int, int], count: int) -> None:
        """Check that BN can learn from a batch of `count` images (C, H, W) in this process.

        Raises:
            UsageError: it cannot, because the net's last maps are one pixel wide.
        """
        together = self.settings.sync_bn and self.world.size > 1
        if (
            count > 1
            or together
            or modes.normalises(self.model, torch.full((1, *shape), 0.5, device=self.device))
        ):
            return
        whose = f", one for each of {self.world.size} processes" if self.world.size > 1 else ""
        raise UsageError(
            f"--batch-size {self.settings.batch_size}{whose}: batch normalisation cannot train "
            f"{self.settings.arch} on one image of {shape[1]}x{shape[2]} alone: "
            f"give --batch-size {2 * self.world.size} or more"
        )

    def passes_of(self, net: nn.Module) -> nn.Module:
        """Return a net as this run computes it: as it is, or in bfloat16."""
        return precision.Mixed(net) if self.settings.amp else net

    def _computed(self, net: nn.Module) -> nn.Module:
        """Return a net for the passes of every step, compiled where the run is."""
        passes = self.passes_of(net)
        if not self.settings.compile:
            return passes
        return precision.compiled(passes, self.device, self.settings.compile_mode)

    @property
    def average(self) -> nn.Module | None:
        """The weight average, if one is kept."""
        kept = self.swa or self.ema
        return kept.model if kept else None

    def learn(self, batch: Batch, epoch: int, step: int) -> StepOutput:
        """Train on one batch, in the order of the ADR authors' code."""
        # Here and nowhere else: validation and every evaluation multiply in float32.
        with precision.tf32(self.settings.tf32):
            return self._step(batch, epoch, step)

    def _step(self, batch: Batch, epoch: int, step: int) -> StepOutput:
        settings, model = self.settings, self.model
        # Schedules count iterations of the whole run, so that a resumed run needs no state of them.
        t = epoch * self.steps + step
        self._set_rate(t)
        self._set_bn_momentum(t)

        # 1. Targets: an EMA teacher answers as it was before this step, in eval mode.
        targets = self._targets(batch, epoch, step)
        shape = (len(batch.y), self.classes)
        self.guard.check_targets(targets, shape, settings.labels, epoch, step)

        # 2. Inner attack: it sees those targets; `--attack-bn` says what it does to BN.
        model.train()
        given = self._given(batch, targets, epoch)
        x_adv, still = batch.x, Still()
        if settings.attack_steps > 0:
            with modes.attack_bn(model, settings.attack_bn):
                if self.parts.clean_first:
                    given.clean()
                x_adv = self._attacked(batch, given, still, epoch, step)

        # 3. Objective: a function of the net, because AWP asks at two points in weight space.
        penalty = self._aligned(batch, targets, epoch, step)

        def objective(net: nn.Module) -> tuple[Tensor, dict[str, Tensor]]:
            loss, logits = self.parts.outer(net, batch.x, x_adv, given)
            self.guard.check_outer(loss, logits, shape, settings.objective, epoch, step)
            return (loss if penalty is None else loss + penalty(net)), logits

        # 4. Descent: at the worst weights nearby, or plainly.
        if settings.awp > 0 and epoch + 1 >= settings.awp_warmup:
            loss, logits = self._perturbed_step(objective, epoch, step)
        else:
            loss, logits = objective(self.shared)
            self._backward(loss, logits, epoch, step)
            self.optimizer.step()

        # Not a kind of logits: what the objective leaves its memory.
        told = {"labels": targets, "objectives": logits.pop(REMEMBERED, targets)}
        remembering.update(self.memory, self.parts, batch, told, epoch + 1, self.world)

        # 5. The pass that some codes log with: its answers are not used, BN's statistics move.
        if settings.logging_pass:
            self._clean(batch.x)

        # 6. Average: the EMA moves last, after ranks agreed on BN's statistics.
        self._agree_on_norms()
        if self.ema:
            self.ema.update(model, t + 1)
        # In the epoch's last step, so that a run that stops after it has it in its state.
        if self.swa and step + 1 == self.steps:
            self.swa.update(model, epoch + 1)
        return StepOutput(targets, loss, logits, still.examples)

    def settle(self, images: Iterable[Tensor], epoch: int) -> None:
        """Recompute BN's statistics of an even weight average, once it is one.

        Args:
            images: clean training images by batches, (B, C, H, W), this process's share.
            epoch: that has ended, counted from 1.
        """
        if self.swa and epoch >= self.swa.start:
            net = self.swa.model
            swa.recompute(net, self.passes_of(net), images, self.world.mean)

    def _set_rate(self, t: int) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(t)
            if self.momentum is not None:
                group["momentum"] = self.momentum(t)

    def _set_bn_momentum(self, t: int) -> None:
        """Follow the extra-data runs of ADR's code: 1 at the first iteration, then constant.

        It stands for Haiku's moving average, whose first value is the first batch's.
        """
        momentum = self.settings.bn_momentum
        if momentum is not None:
            for norm in modes.batch_norms(self.model):
                norm.momentum = 1.0 if t == 0 and self.settings.init is None else momentum

    def _stream(self, purpose: str, epoch: int, step: int) -> torch.Generator:
        """Return the generator of one of this step's large draws; ranks draw the whole batch's."""
        return seeding.generator(self.settings.seed, purpose, epoch, step, device=self.drawing)

    @torch.no_grad()
    def _targets(self, batch: Batch, epoch: int, step: int) -> Tensor:
        context = Context(
            (epoch * self.steps + step) / (self.settings.epochs * self.steps),
            self.classes,
            self.teacher,
            self.soft,
            lambda: self._stream("teacher noise", epoch, step),
            self.memory.get("labels", {}),
            epoch + 1,
        )
        if batch.mix is None:
            return self.parts.targets(batch, context)
        # Mixed after the source: it is asked for the images that it knows, not for mixed ones.
        first, second = (
            self.parts.targets(one, context) for one in (batch.mix.first, batch.mix.second)
        )
        return batch.mix.of(first, second)

    def _given(self, batch: Batch, targets: Tensor, epoch: int) -> Given:
        return Given(
            batch.y,
            targets,
            cache(lambda: self._clean(batch.x)),
            teachers=self.taught,
            memory=self.memory.get("objectives", {}),
            index=batch.index,
            epoch=epoch + 1,
            epochs=self.settings.epochs,
            gathered=self.world.gathered,
        )

    @torch.no_grad()
    def _clean(self, x: Tensor) -> Tensor:
        """Return clean logits without gradient, in the mode that the net is in."""
        logits: Tensor = self.passes(x)
        return logits

    def _attacked(self, batch: Batch, given: Given, still: Still, epoch: int, step: int) -> Tensor:
        generator = self._stream("attack", epoch, step)

        def ascended(x_adv: Tensor, logits: Tensor) -> Tensor:
            # Shapes cost a GPU nothing to look at.
            models.require_logits(logits, len(given.y), self.classes, self.settings.arch)
            images = {"x": batch.x, "x_adv": x_adv}
            seen = {name: images[name] for name in self.parts.sees}
            losses = self.parts.inner(logits, given, **seen)
            self.guard.check_inner(losses, len(given.y), self.settings.objective, epoch, step)
            return losses

        return self.attack.images(self.passes, batch, ascended, generator, still)

    def _aligned(self, batch: Batch, targets: Tensor, epoch: int, step: int) -> Penalty | None:
        """Return GradAlign's weighted penalty as a function of the net, if it is asked for."""
        weight = self.settings.grad_align
        if not weight > 0:
            return None
        generator = self._stream("alignment", epoch, step)
        noisy = self.threat.start(
            batch.x, "uniform", generator, batch.rows, batch.total, clip=False
        )
        at_x = alignment.direction(self.passes, batch.x, targets)
        return lambda net: weight * alignment.penalty(net, noisy, targets, at_x)

    def _perturbed_step(
        self, objective: Objective, epoch: int, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Take one step with adversarial weight perturbation.

        original: the direction comes from a pass that leaves BN alone; the step is taken at the
        perturbed weights, whose pass moves BN. adr: the first pass moves BN and is what metrics
        see; the gradient comes from the perturbed weights, the step is taken after they are back.
        """
        settings, model = self.settings, self.model
        original = settings.awp_form == "original"
        # The direction: uphill in the loss on the same adversarial images.
        with modes.attack_bn(model, "frozen" if original else "train"):
            loss, logits = objective(self.passes)
        self.guard.check(loss, "loss", logits, epoch, step)
        weights = awp.chosen(model, settings.awp_form)
        slopes = torch.autograd.grad(loss, list(weights.values()))
        gradients = dict(zip(weights, slopes, strict=True))
        self.world.mean(gradients.values())  # or each rank would train at another point
        # The gradient of the student: that of the perturbed weights.
        with (
            awp.perturbed(model, gradients, settings.awp),
            modes.attack_bn(model, "train" if original else "frozen"),
        ):
            worst_loss, worst_logits = objective(self.shared)
            self._backward(worst_loss, worst_logits, epoch, step)
            if original:
                self.optimizer.step()
        if original:
            return worst_loss, worst_logits
        self.optimizer.step()
        return loss, logits

    def _backward(self, loss: Tensor, logits: Mapping[str, Tensor], epoch: int, step: int) -> None:
        """Refuse a non-finite loss or gradient; leave the gradient on the parameters."""
        self.guard.check(loss, "loss", logits, epoch, step)
        # Set to None, not to zero: the backward pass then writes gradients instead of adding them.
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        # Sums of magnitudes: finite exactly where every entry is, but for an overflow, which
        # is as good as one.
        total = torch.nn.utils.get_total_norm(gradients, 1)
        self.guard.check(total, "gradient's norm", logits, epoch, step)
        if self.settings.clip_grad_norm > 0:
            # After ranks averaged: the norm is the whole batch's, and the same on each.
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip_grad_norm)

    def _agree_on_norms(self) -> None:
        """Average BN's running statistics over ranks: each has seen its share of the batch only.

        The mean is that of the global batch; the variance lacks what lies between the shares.
        """
        if self.world.alone:
            return
        norms = modes.batch_norms(self.model)
        self.world.mean(
            statistic
            for norm in norms
            for statistic in (norm.running_mean, norm.running_var)
            if statistic is not None
        )
