"""The inner attack of training: PGD, or one step of it from a wider start."""

from __future__ import annotations

from collections.abc import Callable

from torch import Generator, Tensor, nn

from advkit.attacks.pgd import Seeing, pgd
from advkit.config.settings import Settings
from advkit.formulas.threat import Threat, parse_eps, step_size
from advkit.images.batches import Batch


class Still:
    """Which examples of a batch had no gradient at any step of their attack.

    Their images stayed where they began, whatever the attack says.
    """

    def __init__(self) -> None:
        self.examples: Tensor | None = None

    def __call__(self, gradient: Tensor) -> None:
        """Look at one step's gradient, (B, C, H, W); one that is not finite is not zero."""
        zero = ~gradient.flatten(1).any(1)
        self.examples = zero if self.examples is None else self.examples & zero


class InnerAttack:
    """What the settings ask for, waiting for a batch.

    `start` is the ball of the first iterate, `reach` the ball that the training images lie in: that
    of ε for PGD and FGSM-RS; for N-FGSM that of kε and of kε + α, the sum of noise and step, so
    that the projection leaves the step alone and clips to the pixel box.

    Source of N-FGSM: de Jorge et al., "Make Some Noise: Reliable and Efficient Single-Step
    Adversarial Training", NeurIPS 2022, arXiv 2202.01181, algorithm 1. Of FGSM-RS: Wong et al.,
    "Fast is better than free", ICLR 2020, algorithm 3.
    """

    def __init__(self, settings: Settings, start: str) -> None:
        self.threat = Threat(settings.norm, parse_eps(settings.eps, settings.norm))
        self.size = step_size(settings.step_size, self.threat.eps)
        self.steps, self.kind, self.clip = settings.attack_steps, start, settings.clip_start
        self.start = self.reach = self.threat
        if settings.train_attack == "n-fgsm":
            radius = settings.start_radius * self.threat.eps
            self.start = Threat(settings.norm, radius)
            self.reach = Threat(settings.norm, radius + self.size)

    def images(
        self,
        model: nn.Module,
        batch: Batch,
        loss: Seeing,
        generator: Generator,
        watch: Callable[[Tensor], None] | None = None,
    ) -> Tensor:
        """Return the adversarial images of a batch, (B, C, H, W), inside `reach` and box.

        Args:
            model: logits from pixels, in the mode that the caller chose.
            batch: clean images.
            loss: an iterate (B, C, H, W) and its logits (B, C) → loss per example (B,), ascended.
            generator: of the start's noise.
            watch: is shown each step's gradient.
        """

        def seen(x_adv: Tensor, logits: Tensor) -> Tensor:
            # A hook, so that PGD, whose source names what it evaluates, knows nothing of it.
            if watch is not None:
                x_adv.register_hook(watch)  # type: ignore[no-untyped-call]
            return loss(x_adv, logits)

        start = self.start.start(
            batch.x, self.kind, generator, batch.rows, batch.total, clip=self.clip
        )
        return pgd(
            model,
            batch.x,
            batch.y,
            self.reach,
            steps=self.steps,
            step_size=self.size,
            seeing=seen,
            start=start,
        )
