"""What learns: the student, its average, its optimizer, and one step of training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from advkit import models, registry
from advkit.attacks.pgd import pgd
from advkit.config.settings import Settings
from advkit.errors import NumericalError, UsageError
from advkit.formulas.schedules import learning_rate
from advkit.formulas.threat import Threat, parse_eps, step_size
from advkit.images.batches import Batch
from advkit.images.image_set import ImageSet, identity
from advkit.labels import Context
from advkit.objectives import Given
from advkit.parallel.world import World
from advkit.runtime import modes, precision, seeding
from advkit.runtime.tempered import Tempered
from advkit.softlabels.source import Live
from advkit.weights import awp
from advkit.weights.ema import Ema

CHECK_EVERY = 20
"""Steps between looks at the loss on a GPU, where each look waits for the device."""

Outer = Callable[[nn.Module], tuple[Tensor, dict[str, Tensor]]]


@dataclass(frozen=True)
class Lesson:
    """What one step saw: the rows (B, C) asked for, the loss, and logits by kind."""

    targets: Tensor
    loss: Tensor
    seen: Mapping[str, Tensor]


class Learner:
    """A student with everything that changes while it learns.

    `steps` is the number of iterations of an epoch, which schedules count in. In a world of several
    processes, attacks and ADR's teacher run on the bare net and touch nobody else; one backward
    pass averages gradients, and BN's statistics are averaged before the EMA sees them.
    """

    def __init__(
        self,
        settings: Settings,
        images: ImageSet,
        steps: int,
        device: torch.device,
        soft: Callable[[Batch], Tensor] | None = None,
        world: World | None = None,
    ) -> None:
        self.settings, self.steps, self.device, self.soft = settings, steps, device, soft
        self.world = world or World()
        self.classes = len(images.classes)
        self.threat = Threat(settings.norm, parse_eps(settings.eps, settings.norm))
        self._find_parts()
        self.model = models.build(
            settings.arch,
            self.classes,
            channels=images.shape[0],
            statistics=statistics_of(settings, images),
            seed=settings.seed,
            **settings.options_of("models"),
        ).to(device)
        if settings.sync_bn:
            self.model = self._synchronised(self.model)
        self.student: nn.Module = self.model
        if settings.student_temperature != 1:
            self.student = Tempered(self.model, settings.student_temperature)
        if settings.amp:
            precision.require_bf16(device)
            if isinstance(soft, Live):
                soft.teacher = self.passes_of(soft.teacher)
        self.passes = self.passes_of(self.student)
        if settings.compile:
            if not self.world.alone:
                raise UsageError("--compile is for one process")
            self.passes = precision.compiled(self.passes, device)
        self.shared = self.world.wrapped(self.passes)
        needs_ema = settings.wa or "ema" in self.label_needs
        self.ema = Ema(self.model, settings.ema_decay) if needs_ema else None
        self.teacher = self.passes_of(self.ema.model) if self.ema else None
        self.step_size = step_size(settings.step_size, self.threat.eps)
        self.optimizer = torch.optim.SGD(
            _groups(self.model, settings),
            lr=settings.lr,
            momentum=settings.momentum,
            nesterov=settings.nesterov and settings.momentum > 0,
            fused=device.type in ("cpu", "cuda"),
        )
        self.finite = torch.ones((), dtype=torch.bool, device=device)

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

    def _synchronised(self, model: nn.Module) -> nn.Module:
        if self.device.type != "cuda" or self.world.alone:
            raise UsageError("--sync-bn needs several processes on GPUs")
        if self.settings.attack_bn != "eval" and self.settings.attack_steps > 0:
            raise UsageError("--sync-bn goes with --attack-bn eval: the attack waits for nobody")
        convert = nn.SyncBatchNorm.convert_sync_batchnorm
        found: nn.Module = convert(model)  # type: ignore[no-untyped-call]
        return found

    def passes_of(self, net: nn.Module) -> nn.Module:
        """Return a net as this run computes it: as it is, or in bfloat16."""
        return precision.Mixed(net) if self.settings.amp else net

    @property
    def average(self) -> nn.Module | None:
        """The weight average, if one is kept."""
        return self.ema.model if self.ema else None

    def learn(self, batch: Batch, epoch: int, step: int) -> Lesson:
        """Train on one batch.

        The order is that of the ADR authors' code: labels come from the teacher as it was
        before this step, the attack sees those labels, and the teacher moves last.
        """
        settings, model = self.settings, self.model
        t = epoch * self.steps + step
        self._set_bn_momentum(t)
        targets = self._targets(batch, epoch, step)
        model.train()
        given = Given(batch.y, targets, cache(lambda: self._clean(batch.x)))
        x_adv = batch.x
        if settings.attack_steps > 0:
            with modes.attack_bn(model, settings.attack_bn):
                if self.clean_first:
                    given.clean()
                x_adv = self._attacked(batch, given, epoch, step)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(t)

        def outer(net: nn.Module) -> tuple[Tensor, dict[str, Tensor]]:
            found: tuple[Tensor, dict[str, Tensor]] = self.objective.outer(
                net, batch.x, x_adv, given, **self.outer_options
            )
            return found

        if settings.awp > 0 and epoch + 1 >= settings.awp_warmup:
            loss, seen = self._perturbed_step(outer, epoch, step)
        else:
            loss, seen = outer(self.shared)
            self._descend(loss, seen, epoch, step)
            self.optimizer.step()
        self._agree_on_norms()
        if self.ema:
            self.ema.update(model)
        return Lesson(targets, loss, seen)

    @torch.no_grad()
    def _targets(self, batch: Batch, epoch: int, step: int) -> Tensor:
        context = Context(
            (epoch * self.steps + step) / (self.settings.epochs * self.steps),
            self.classes,
            self.teacher,
            self.soft,
            lambda: seeding.generator(self.settings.seed, "teacher noise", epoch, step),
        )
        found: Tensor = self.labels.targets(batch, context, **self.label_options)
        return found

    def _agree_on_norms(self) -> None:
        """Average BN's running statistics over ranks: each has seen its share of the batch only.

        The mean is that of the global batch; the variance lacks what lies between the shares.
        """
        if self.world.alone:
            return
        norms = modes.batch_norms(self.model)
        self.world.mean(
            each for norm in norms for each in (norm.running_mean, norm.running_var)
            if each is not None
        )  # fmt: skip

    def _set_bn_momentum(self, t: int) -> None:
        """Follow the extra-data runs of ADR's code: 1 at the first iteration, then constant.

        It stands for Haiku's moving average, whose first value is the first batch's.
        """
        momentum = self.settings.bn_momentum
        if momentum is not None:
            for norm in modes.batch_norms(self.model):
                norm.momentum = 1.0 if t == 0 else momentum

    def _descend(self, loss: Tensor, seen: Mapping[str, Tensor], epoch: int, step: int) -> None:
        """Refuse a non-finite loss or gradient; leave the gradient on the parameters."""
        self._guard(loss, "loss", seen, epoch, step)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        found = [each.grad for each in self.model.parameters() if each.grad is not None]
        # Sums of magnitudes: finite exactly where every entry is, but for an overflow, which
        # is as good as one.
        total = torch.nn.utils.get_total_norm(found, 1)
        self._guard(total, "gradient's norm", seen, epoch, step)

    def _perturbed_step(
        self, outer: Outer, epoch: int, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Take one step with adversarial weight perturbation.

        original: the direction comes from a pass that leaves BN alone; the step is taken at the
        perturbed weights, whose pass moves BN. adr: the first pass moves BN and is what metrics
        see; the gradient comes from the perturbed weights, the step is taken after they are back.
        """
        settings, model = self.settings, self.model
        original = settings.awp_form == "original"
        with modes.attack_bn(model, "frozen" if original else "train"):
            loss, seen = outer(self.passes)
        self._guard(loss, "loss", seen, epoch, step)
        found = awp.chosen(model, settings.awp_form)
        gradients = dict(zip(found, torch.autograd.grad(loss, list(found.values())), strict=True))
        self.world.mean(gradients.values())  # or each rank would train at another point
        with (
            awp.perturbed(model, gradients, settings.awp),
            modes.attack_bn(model, "train" if original else "frozen"),
        ):
            worst, seen_there = outer(self.shared)
            self._descend(worst, seen_there, epoch, step)
            if original:
                self.optimizer.step()
        if original:
            return worst, seen_there
        self.optimizer.step()
        return loss, seen

    @torch.no_grad()
    def _clean(self, x: Tensor) -> Tensor:
        """Return clean logits for the attack, in the mode that the attack runs in."""
        logits: Tensor = self.passes(x)
        return logits

    def _attacked(self, batch: Batch, given: Given, epoch: int, step: int) -> Tensor:
        settings = self.settings
        generator = seeding.generator(settings.seed, "attack", epoch, step)
        return pgd(
            self.passes,
            batch.x,
            batch.y,
            self.threat,
            steps=settings.attack_steps,
            step_size=self.step_size,
            loss=lambda logits, _: self.objective.inner(logits, given, **self.inner_options),
            start=self.threat.start(batch.x, self.start, generator, batch.rows, batch.total),
        )

    def rate(self, t: int) -> float:
        """Return the learning rate of iteration t of the whole run."""
        settings = self.settings
        return learning_rate(
            settings.lr_schedule,
            settings.lr,
            t,
            self.steps,
            settings.epochs,
            settings.drops,
            round(settings.warmup * self.steps),
        )

    def _guard(
        self, value: Tensor, what: str, seen: Mapping[str, Tensor], epoch: int, step: int
    ) -> None:
        """Refuse a non-finite value before it reaches the weights (on a GPU: soon after).

        Raises:
            NumericalError: naming epoch, step, value, what it was made from, and learning rate.
        """
        self.finite &= torch.isfinite(value.detach())
        if self.device.type != "cpu" and step % CHECK_EVERY:
            return
        if not bool(self.finite):
            wrong = [kind for kind, z in seen.items() if not bool(torch.isfinite(z).all())]
            made = f"{' and '.join(wrong)} logits are not" if wrong else "all logits are"
            where = f"at epoch {epoch + 1}, step {step + 1}"
            self.require_finite(f"the {what} is {value.item()} {where} ({made} finite)")

    def agree_on_finite(self) -> None:
        """Check on all ranks that every loss so far was finite on each.

        Raises:
            NumericalError: one was not.
        """
        lost = self.world.most(int(not bool(self.finite)))
        self.finite &= not lost
        self.require_finite()

    def require_finite(self, what: str = "a loss since the last look is not finite") -> None:
        """Check that every loss so far was finite.

        Raises:
            NumericalError: one was not.
        """
        if not bool(self.finite):
            rate = self.optimizer.param_groups[0]["lr"]
            raise NumericalError(
                f"{what}, learning rate {rate:g}: the run diverged; earlier checkpoints are kept; "
                "lower --lr"
            )


def statistics_of(
    settings: Settings, images: ImageSet
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and deviation that the net subtracts and divides by."""
    return images.normalisation if settings.normalise else identity(images.shape[0])


def _groups(model: nn.Module, settings: Settings) -> list[dict[str, Any]]:
    """Return the optimizer's parameter groups; BN has its own where it does not decay."""
    every = list(model.parameters())
    if settings.norm_decay:
        return [{"params": every, "weight_decay": settings.weight_decay}]
    norms = {id(p) for norm in modes.batch_norms(model) for p in norm.parameters()}
    return [
        {
            "params": [p for p in every if id(p) not in norms],
            "weight_decay": settings.weight_decay,
        },
        {"params": [p for p in every if id(p) in norms], "weight_decay": 0.0},
    ]


def _arguments(function: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Pick the options that a function declares, under its own spelling (`lambda_`)."""
    declared = function.__kwdefaults__ or {}
    return {name: options[name.rstrip("_")] for name in declared if name.rstrip("_") in options}
