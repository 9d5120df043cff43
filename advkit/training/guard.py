"""What keeps a step from spoiling the weights: finite numbers, and options that go together."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from advkit.config.settings import Settings
from advkit.errors import NumericalError, UsageError
from advkit.parallel.world import World
from advkit.runtime import precision
from advkit.training.parts import augmentation_of, parts_of

CHECK_EVERY = 20
"""Steps between looks at the loss on a GPU, where each look waits for the device."""
TOLERANCE = 1e-3
"""How far a row of targets may be from summing to 1: half precision's rounding of some hundreds."""
SEEN = "since the last look a row was no distribution over the classes"


class Guard:
    """Remembers whether every loss and gradient so far was finite, and every target proper.

    The memory is a tensor on the device, so that asking costs a GPU nothing until it is read.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, device: torch.device, world: World
    ) -> None:
        self.optimizer, self.device, self.world = optimizer, device, world
        self.finite = torch.ones((), dtype=torch.bool, device=device)
        self.proper = self.finite.clone()

    def check_targets(
        self, targets: Tensor, wanted: tuple[int, int], part: str, epoch: int, step: int
    ) -> None:
        """Refuse targets that are not a distribution over the classes each (on a GPU: soon after).

        Args:
            targets: what a label source gave.
            wanted: (B, C), the shape they must have.
            part: the label source.

        Raises:
            NumericalError: naming the part, epoch, step and what is wrong.
        """
        source = f"label source {part!r}, epoch {epoch + 1}, step {step + 1}"
        if tuple(targets.shape) != wanted:
            raise NumericalError(f"{source}: targets of shape {tuple(targets.shape)}, not {wanted}")
        sums = targets.sum(1)
        # NaN fails both comparisons, so that nothing else has to look for it.
        rows = (targets.amin(1) >= -TOLERANCE) & ((sums - 1).abs() <= TOLERANCE)
        self.proper &= rows.all()
        if self.device.type != "cpu" and step % CHECK_EVERY:
            return
        if not bool(self.proper):
            rate = self.optimizer.param_groups[0]["lr"]
            raise NumericalError(f"{source}: {_improper(targets, rows, sums, rate)}")

    def check_inner(self, losses: Tensor, count: int, part: str, epoch: int, step: int) -> None:
        """Refuse inner losses that are not one an example: a sum would mix the examples up.

        Args:
            losses: what an objective's `inner` gave.
            count: B.
            part: the objective.

        Raises:
            NumericalError: naming the part, epoch, step and the shape.
        """
        if not isinstance(losses, Tensor) or tuple(losses.shape) != (count,):
            raise NumericalError(
                f"objective {part!r}, epoch {epoch + 1}, step {step + 1}: inner losses of shape "
                f"{_shape(losses)}, not {(count,)}: one for each example"
            )

    def check_outer(
        self,
        loss: Tensor,
        logits: Mapping[str, Tensor],
        wanted: tuple[int, int],
        part: str,
        epoch: int,
        step: int,
    ) -> None:
        """Refuse a loss that is no scalar, and what an objective gives beside it and is no logits.

        Args:
            loss: what an objective's `outer` gave.
            logits: what it saw, by kind.
            wanted: (B, C), the shape that logits have.
            part: the objective.

        Raises:
            NumericalError: naming the part, epoch, step and the shape.
        """
        where = f"objective {part!r}, epoch {epoch + 1}, step {step + 1}"
        if not isinstance(loss, Tensor) or loss.dim() != 0:
            raise NumericalError(f"{where}: a loss of shape {_shape(loss)}, not one number")
        for kind, z in logits.items():
            if not isinstance(z, Tensor) or tuple(z.shape) != wanted:
                shape = _shape(z)
                raise NumericalError(f"{where}: {kind} logits of shape {shape}, not {wanted}")

    def check(
        self, value: Tensor, what: str, logits: Mapping[str, Tensor], epoch: int, step: int
    ) -> None:
        """Refuse a non-finite value before it reaches the weights (on a GPU: soon after).

        Raises:
            NumericalError: naming epoch, step, value, what it was made from, and learning rate.
        """
        # In place and without a look: a GPU goes on while the process queues the next step.
        self.finite &= torch.isfinite(value.detach())
        if self.device.type != "cpu" and step % CHECK_EVERY:
            return
        if not bool(self.finite):
            wrong = [kind for kind, z in logits.items() if not bool(torch.isfinite(z).all())]
            origin = f"{' and '.join(wrong)} logits are not" if wrong else "all logits are"
            where = f"at epoch {epoch + 1}, step {step + 1}"
            self._require_finite(f"the {what} is {value.item()} {where} ({origin} finite)")

    def agree(self) -> None:
        """Check on all ranks that every value so far was finite, and every target proper, on each.

        Raises:
            NumericalError: one was not.
        """
        diverged = self.world.most(int(not bool(self.finite)))
        self.finite &= not diverged
        self._require_finite("a loss since the last look is not finite")
        # On a GPU the steps after an epoch's last look are seen here, before anything is written.
        if self.world.most(int(not bool(self.proper))):
            raise NumericalError(f"the label source's targets: {SEEN}")

    def _require_finite(self, what: str) -> None:
        if not bool(self.finite):
            rate = self.optimizer.param_groups[0]["lr"]
            raise NumericalError(
                f"{what}, learning rate {rate:g}: the run diverged; earlier checkpoints are kept; "
                "lower --lr"
            )


def _shape(value: object) -> object:
    return tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__


def _improper(targets: Tensor, rows: Tensor, sums: Tensor, rate: float) -> str:
    if bool(rows.all()):
        return SEEN
    row = int((~rows).nonzero()[0])
    if not bool(targets[row].isfinite().all()):
        return (
            f"row {row} of the targets is not finite, learning rate {rate:g}: "
            "if they come from the net in training it diverged; lower --lr"
        )
    if float(targets[row].amin()) < -TOLERANCE:
        return f"row {row} of the targets has a negative entry, {float(targets[row].amin()):g}"
    return f"row {row} of the targets sums to {float(sums[row]):g}, not 1"


def require_applicable(settings: Settings, device: torch.device, world: World) -> None:
    """Check that this machine and these processes can do what the settings ask for.

    Raises:
        UsageError: `--sync-bn`, `--amp`, `--tf32`, `--compile`, `--compile-mode`, `--grad-align` or
            `--augment` cannot be applied; the message says why.
    """
    _require_whole_images(settings)
    if settings.sync_bn:
        if device.type != "cuda" or world.alone:
            raise UsageError("--sync-bn needs several processes on GPUs")
        if settings.attack_bn != "eval" and settings.attack_steps > 0:
            raise UsageError("--sync-bn goes with --attack-bn eval: the attack waits for nobody")
    if settings.amp:
        precision.require_bf16(device)
    if settings.tf32:
        precision.require_tf32(device)
    if settings.compile and not world.alone:
        raise UsageError("--compile is for one process")
    if settings.grad_align > 0 and not world.alone:
        raise UsageError("--grad-align is for one process: its mean leaves examples out")
    if settings.grad_align > 0 and settings.compile:
        raise UsageError("--grad-align goes without --compile, which has no second derivative")


def _require_whole_images(settings: Settings) -> None:
    """Refuse mixed images where something is kept of each: they are of two examples.

    Raises:
        UsageError: a part of the run keeps a memory.
    """
    if augmentation_of(settings).mixed is None:
        return
    for shelf in parts_of(settings).keeps:
        name = settings.objective if shelf == "objectives" else settings.labels
        raise UsageError(
            f"--augment {settings.augment}: it mixes images, and {name} keeps a memory of single "
            "ones: give another --augment"
        )
