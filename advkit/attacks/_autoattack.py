"""AutoAttack by its authors' own code, kept away from the rest of the process.

The package `pyautoattack` re-seeds the global generator, takes a net in any mode, asks for
nine target classes whatever there are, and never says which attack broke what. Here each of
its attacks runs alone on one batch; the caller keeps the books.

Source: Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of
diverse parameter-free attacks", ICML 2020.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib.metadata import version as installed

import torch
from pyautoattack import AutoAttack
from torch import Tensor, nn

from advkit import modes
from advkit.errors import unknown
from advkit.threat import Threat

VERSIONS = {
    "standard": ("apgd-ce", "apgd-t", "fab-t", "square"),
    "plus": ("apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"),
    "rand": ("apgd-ce", "apgd-dlr"),
}
TARGETS = 9
CLASSES_NEEDED = {"apgd-dlr": 3, "apgd-t": 4}
NORM = {"linf": "Linf", "l2": "L2"}
IMPLEMENTATION = "pyautoattack"


def attacks(version: str, classes: int) -> tuple[str, ...]:
    """Return the attacks of a version that C classes allow, in their order.

    The DLR loss needs three classes and its targeted form four; the rest works from two on.

    Raises:
        UsageError: no such version.
    """
    if version not in VERSIONS:
        raise unknown("AutoAttack version", version, VERSIONS)
    return tuple(name for name in VERSIONS[version] if classes >= CLASSES_NEEDED.get(name, 2))


def package() -> str:
    """Return the implementation and its version, for the record."""
    return f"{IMPLEMENTATION} {installed(IMPLEMENTATION)}"


class Judge:
    """The attacks of one AutoAttack version on one model.

    `model` must give logits and stays in eval mode and without parameter gradients during an
    attack. Each attack starts from `seed` for each batch, as upstream does, so that verdicts
    equal upstream's for the same batches.
    """

    def __init__(
        self, model: nn.Module, threat: Threat, version: str, classes: int, seed: int
    ) -> None:
        # Upstream warns through a logger of its own; the evaluation has its own warnings.
        logger = logging.getLogger("auto-attack")
        logger.propagate = False
        logger.handlers = [logging.NullHandler()]
        self.model = model
        self.seed = seed
        device = next(model.parameters()).device
        self.devices = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=self.devices):
            suite = AutoAttack(
                model,
                norm=NORM[threat.norm],
                eps=threat.eps,
                seed=seed,
                version=version,
                device=device,
            )
        targets = min(TARGETS, classes - 1)
        suite.apgd_targeted.n_target_classes = targets
        suite.fab.n_target_classes = targets
        self.suite = suite

    def attack(self, name: str, x: Tensor, y: Tensor) -> Tensor:
        """Run one attack on one batch of correctly classified images.

        Args:
            name: an attack of `attacks(version, classes)`.
            x: (B, C, H, W) in [0, 1].
            y: (B,) int64.

        Returns:
            (B, C, H, W): misclassified images where it succeeded, clean ones elsewhere.
        """
        run = self._attacks()[name]
        with (
            torch.random.fork_rng(devices=self.devices),
            modes.frozen(self.model),
            modes.evaluating(self.model),
            torch.no_grad(),
        ):
            adversarial: Tensor = run(x.clone(), y.clone())
        return adversarial.detach()

    def _attacks(self) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
        suite, seed = self.suite, self.seed

        def apgd(loss: str) -> Callable[[Tensor, Tensor], Tensor]:
            def run(x: Tensor, y: Tensor) -> Tensor:
                suite.apgd.loss, suite.apgd.seed = loss, seed
                found: Tensor = suite.apgd.perturb(x, y)
                return found

            return run

        def fab(targeted: bool) -> Callable[[Tensor, Tensor], Tensor]:
            def run(x: Tensor, y: Tensor) -> Tensor:
                suite.fab.targeted, suite.fab.seed = targeted, seed
                if targeted:
                    suite.fab.n_restarts = 1  # upstream's choice, whatever the version
                found: Tensor = suite.fab.perturb(x, y)
                return found

            return run

        return {
            "apgd-ce": apgd("ce"),
            "apgd-dlr": apgd("dlr"),
            "apgd-t": suite.apgd_targeted.perturb,
            "fab": fab(False),
            "fab-t": fab(True),
            "square": suite.square.perturb,
        }
