"""What a search measures on held-out examples: the teacher, the substitutes, the students."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from advkit import models
from advkit.artifacts.descriptions import Trial, TrialKind
from advkit.attacks import pgd
from advkit.attacks.upstream import autoattack
from advkit.config.settings import Settings
from advkit.formulas.accuracy import correct
from advkit.formulas.losses import cross_entropy, kl_divergence
from advkit.formulas.threat import Threat, parse_eps
from advkit.images.batches import Batch
from advkit.images.image_set import ImageSet, pixels
from advkit.labels.soft import soften
from advkit.runtime import modes, seeding
from advkit.runtime.reporting import Reporter
from advkit.search.ledger import Judged
from advkit.training.run_folder import RunFolder

ATTACKS = ("apgd-ce", "apgd-t")
"""AutoAttack's first two: what breaks nearly all that breaks, at a fraction of its passes."""
BATCH = 256
JUDGING = "judging by APGD"
"""How the work is called while it lasts."""


@dataclass(frozen=True)
class Evaluator:
    """The held-out examples by position, and the teacher's logits for them."""

    images: ImageSet
    held_out: Tensor
    source: Callable[[Batch], Tensor]
    device: torch.device
    reporter: Reporter = Reporter()

    def teacher_accuracy(self) -> float:
        """Return the teacher's top-1, on the examples that substitutes are measured on."""
        hits = 0
        for rows in torch.split(self.held_out, BATCH):
            batch = plain(self.images, rows, self.source, self.device)
            hits += int(correct(self.source(batch), batch.y).sum())
        return hits / len(self.held_out)

    def measured(
        self, kind: TrialKind, temperature: float, folder: RunFolder, settings: Settings
    ) -> Trial:
        """Return the trial of a finished run: the figures of its best checkpoint."""
        model, info = models.load(folder.checkpoint("best"), self.device)
        trial: Trial = {
            "kind": kind,
            "temperature": temperature,
            "clean_accuracy": info["metrics"]["clean_accuracy"],
            "digest": info["digest"],
        }
        if settings.attack_steps == 0:
            return trial
        alarm = any("masking_alarm" in row for row in folder.rows())
        judged = judge(model, self.images, self.held_out, self.source, settings, self.reporter)
        return {**trial, "masking_alarm": alarm, **judged}


@dataclass(frozen=True)
class Suite:
    """APGD-CE and APGD-T, as AutoAttack has them, on one net and the classes of one data set."""

    model: nn.Module
    attacks: autoattack.Judge
    names: Sequence[str]

    @classmethod
    def of(cls, model: nn.Module, images: ImageSet, settings: Settings) -> Suite:
        """Return the suite of a run's threat; three classes or fewer have no APGD-T."""
        threat = Threat(settings.norm, parse_eps(settings.eps, settings.norm))
        classes = len(images.classes)
        names = [name for name in autoattack.attacks("standard", classes) if name in ATTACKS]
        return cls(
            model, autoattack.Judge(model, threat, "standard", classes, settings.seed), names
        )

    def standing(self, x: Tensor, y: Tensor, reporter: Reporter | None = None) -> Tensor:
        """Return which examples, (B,) bool, are right and stay so under every attack.

        Args:
            x: (B, C, H, W) in [0, 1].
            y: (B,) int64.
            reporter: is told which attack goes on.
        """
        model, reporter = self.model, reporter or Reporter()
        with modes.evaluating(model), modes.frozen(model), torch.no_grad():
            standing = correct(model(x), y)
            for name in self.names:
                targets = self.attacks.targets(name)
                for number, target in enumerate(targets, 1):
                    reporter.inside(f"{JUDGING}: {name}", len(targets), number)
                    # Whom an attack broke the next one need not see.
                    rows = standing.nonzero().flatten()
                    if len(rows):
                        attacked = self.attacks.attack(name, x[rows], y[rows], target)
                        standing[rows] = correct(model(attacked), y[rows])
        return standing


def judge(
    model: nn.Module,
    images: ImageSet,
    held_out: Tensor,
    source: Callable[[Batch], Tensor],
    settings: Settings,
    reporter: Reporter | None = None,
) -> Judged:
    """Measure a student on held-out examples.

    Returns `robust_accuracy` under APGD-CE and APGD-T (three classes or fewer: APGD-CE alone),
    `pgd_accuracy` under PGD-10, and eq. 9 in both readings, `loss_ce` and `loss_kl`, with PGD-10
    for x′ and the plain images' soft labels.
    """
    threat = Threat(settings.norm, parse_eps(settings.eps, settings.norm))
    temperature = settings.options_of("labels")["temperature"]
    # An objective without β is measured by TRADES' own.
    beta = settings.options_of("objectives").get("beta", 6.0)
    device = next(model.parameters()).device
    suite = Suite.of(model, images, settings)
    reporter = reporter or Reporter()
    reporter.begin(JUDGING, len(held_out))
    sums = Judged(robust_accuracy=0, pgd_accuracy=0, loss_ce=0, loss_kl=0)
    for start in range(0, len(held_out), BATCH):
        batch = plain(images, held_out[start : start + BATCH], source, device)
        x, y = batch.x, batch.y
        generator = seeding.generator(settings.seed, "judge", start)
        with modes.evaluating(model), modes.frozen(model), torch.no_grad():
            x_adv = pgd.attack(model, x, y, threat, generator=generator, steps=10, loss="ce")
            clean, adversarial = model(x), model(x_adv)
            target = soften(source(batch), temperature).to(clean.dtype)
            shift = beta * kl_divergence(clean, adversarial).sum()
            ce = cross_entropy(clean, target).sum()
            # KL(target ‖ clean) is the cross-entropy less the target's entropy, with 0·log 0 = 0.
            entropy = -torch.special.xlogy(target, target).sum()
            sums["pgd_accuracy"] += int(correct(adversarial, y).sum())
            sums["loss_ce"] += float(ce + shift)
            sums["loss_kl"] += float(ce - entropy + shift)
            sums["robust_accuracy"] += int(suite.standing(x, y, reporter).sum())
        reporter.advance(len(x))
    reporter.end()
    n = len(held_out)
    return {
        "robust_accuracy": sums["robust_accuracy"] / n,
        "pgd_accuracy": sums["pgd_accuracy"] / n,
        "loss_ce": sums["loss_ce"] / n,
        "loss_kl": sums["loss_kl"] / n,
    }


def plain(
    images: ImageSet, index: Tensor, source: Callable[[Batch], Tensor], device: torch.device
) -> Batch:
    """Return examples without crop or flip, with their place in the source's table of views."""
    x = pixels(images.batch(index), device)
    views = torch.tensor([images.pad, images.pad, 0], dtype=torch.uint8).expand(len(index), 3)
    table = getattr(source, "views", None)
    view = torch.zeros(len(index), dtype=torch.int64)
    if table is not None:
        # The plain view where the table has it; else the example's first view stands for it.
        view = (table[index] == views[:, None]).all(2).int().argmax(1)
    return Batch(index, x, images.labels[index].to(device), views, view)


def standing(
    model: nn.Module,
    images: ImageSet,
    held_out: Tensor,
    settings: Settings,
    reporter: Reporter | None = None,
) -> Tensor:
    """Return which held-out examples, (n,) bool on the CPU, neither APGD-CE nor APGD-T breaks.

    Three classes or fewer: APGD-CE alone.
    """
    device = next(model.parameters()).device
    suite = Suite.of(model, images, settings)
    reporter = reporter or Reporter()
    reporter.begin(JUDGING, len(held_out))
    parts = []
    for rows in torch.split(held_out, BATCH):
        x, y = pixels(images.batch(rows), device), images.labels[rows].to(device)
        parts.append(suite.standing(x, y, reporter).cpu())
        reporter.advance(len(rows))
    reporter.end()
    return torch.cat(parts)
