"""AutoAttack and its single attacks by the package's code but for two inner loops in l∞.

The package `pyautoattack` re-seeds the global generator, takes a net in any mode, asks for
nine target classes whatever there are, and never says which attack broke what. Here each of
its attacks, and each target class of one, runs alone on one batch; the caller keeps the books.

Source: Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of
diverse parameter-free attacks", ICML 2020; for l1 "Mind the box", ICML 2021.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from importlib.metadata import version as installed
from types import FunctionType, MethodType

import torch
from pyautoattack import AutoAttack
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
from pyautoattack.fab_base import FABAttack
from pyautoattack.fab_pt import FABAttack_PT
from pyautoattack.square import SquareAttack
from torch import Generator, Tensor, nn

from advkit.attacks.upstream import square as square_walk
from advkit.errors import UsageError, unknown
from advkit.formulas import hyperplane
from advkit.formulas.threat import Threat
from advkit.runtime import modes, seeding

VERSIONS = {
    "standard": ("apgd-ce", "apgd-t", "fab-t", "square"),
    "plus": ("apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"),
    "rand": ("apgd-ce", "apgd-dlr"),
}
FAST = ("apgd-ce", "apgd-t")
TARGETS, TARGETS_L1 = 9, 5
CLASSES_NEEDED = {"apgd-dlr": 3, "apgd-t": 4}
NORM = {"linf": "Linf", "l2": "L2", "l1": "L1"}
STAGES_L1 = 3
"""In l1 APGD takes 0.3, 0.3 and 0.4 of its steps at 3ε, 2ε and ε."""
TIE = 1e-30
"""A margin that is below 0, and no less than what a tie has."""
IMPLEMENTATION = "pyautoattack"
SCHEME = "survivors refilled between targets, Square ahead, FAB unsorted"
"""How the suites' batches and seeds are chosen; verdicts may change with it as with a version."""

Perturb = Callable[[Tensor, Tensor], Tensor]


def attacks(version: str, classes: int) -> tuple[str, ...]:
    """Return the attacks of a version that C classes allow, in their order.

    The DLR loss needs three classes and its targeted form four; the rest works from two on.

    Raises:
        UsageError: no such version.
    """
    if version not in VERSIONS:
        raise unknown("AutoAttack version", version, VERSIONS)
    return tuple(name for name in VERSIONS[version] if classes >= CLASSES_NEEDED.get(name, 2))


def require_classes(attack: str, classes: int) -> None:
    """Check that an attack's loss is defined for C classes.

    Raises:
        UsageError: it is not.
    """
    least = CLASSES_NEEDED.get(attack, 2)
    if classes < least:
        raise UsageError(f"{attack} needs at least {least} classes, the model has {classes}")


def require_tiles(attack: str, norm: str, size: tuple[int, int]) -> None:
    """Check that Square's start in l2 and l1 fits images of a size (height, width).

    It tiles the image with squares of a fifth of the height, from half of what five of them leave
    over, and ends in an error where a tile of two pixels or more would stick out.

    >>> require_tiles("square", "l2", (32, 32)), require_tiles("square", "linf", (4, 4))
    (None, None)

    Raises:
        UsageError: it does not fit.
    """
    high, wide = size
    tile = high // 5
    before = (high - 5 * tile) // 2
    fits = tile > 0 and all(before + side // tile * tile <= side for side in size)
    if attack == "square" and norm != "linf" and not (fits or tile == 1):
        images = f"images of {high}x{wide}"
        why = (
            f"starts from tiles of {tile}x{tile} pixels, which do not fit into {images}"
            if tile
            else f"needs images at least 5 pixels high, not {images}"
        )
        raise UsageError(f"square in {norm} {why}: take --attack apgd-ce, apgd-t or fab-t")


def target_classes(version: str, norm: str, classes: int) -> dict[str, int]:
    """Return how many classes each targeted attack of a version aims at, clamped to C − 1."""
    l1 = version == "standard" and norm == "l1"
    counts = {"apgd-t": TARGETS_L1 if l1 else TARGETS, "fab-t": TARGETS}
    return {name: min(count, classes - 1) for name, count in counts.items()}


def package() -> str:
    """Return the implementation and its version, for the record."""
    return f"{IMPLEMENTATION} {installed(IMPLEMENTATION)}"


def safely(model: nn.Module, perturb: Perturb, x: Tensor, y: Tensor) -> Tensor:
    """Run the package on one batch; images, model and global generators stay as they were.

    The model answers in eval mode and without parameter gradients meanwhile.

    Args:
        model: logits from pixels.
        perturb: (x, y) → (B, C, H, W).
        x: (B, C, H, W) in [0, 1].
        y: (B,) int64.
    """
    _silence()
    # Upstream seeds the global generators; the fork gives them back as they were.
    devices = [x.device] if x.device.type == "cuda" else []
    with (
        torch.random.fork_rng(devices=devices),
        modes.frozen(model),
        modes.evaluating(model),
        torch.no_grad(),
    ):
        return perturb(x.clone(), y.clone()).detach()


def apgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    generator: Generator,
    *,
    loss: str,
    steps: int,
    restarts: int,
    highest: bool = False,
) -> Tensor:
    """Run untargeted APGD.

    Args:
        model: logits from pixels.
        x: (B, C, H, W) in [0, 1].
        y: (B,) int64.
        threat: norm ball and pixel box.
        generator: its initial seed is upstream's, so each call draws the same noise.
        loss: ce or dlr.
        steps: of each restart.
        restarts: random starts.
        highest: return each example's iterate of highest loss, of all examples, instead of
            misclassified images where it succeeded and clean ones elsewhere.
    """
    if loss == "dlr":
        require_classes("apgd-dlr", _classes(model, x, y))
    settings = _apgd_settings(x, threat, generator, steps, restarts)
    attack = APGDAttack(model, loss=loss, **settings)

    def perturb(x: Tensor, y: Tensor) -> Tensor:
        if highest:  # upstream seeds only its other branch
            torch.manual_seed(generator.initial_seed())
        x_adv: Tensor = attack.perturb(x, y, best_loss=highest)
        return x_adv

    return safely(model, perturb, x, y)


def apgd_targeted(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    generator: Generator,
    *,
    steps: int,
    restarts: int,
    targets: int,
) -> Tensor:
    """Run APGD on the targeted DLR loss, a class at a time; see `apgd`."""
    classes = _classes(model, x, y)
    require_classes("apgd-t", classes)
    settings = _apgd_settings(x, threat, generator, steps, restarts)
    count = min(targets, classes - 1)
    return safely(
        model, APGDAttack_targeted(model, n_target_classes=count, **settings).perturb, x, y
    )


def fab_targeted(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    generator: Generator,
    *,
    steps: int,
    restarts: int,
    targets: int,
) -> Tensor:
    """Run targeted FAB; see `apgd`."""
    count = min(targets, _classes(model, x, y) - 1)
    attack = FABAttack_PT(
        model,
        n_iter=steps,
        targeted=True,
        n_target_classes=count,
        **_settings(x, threat, generator, restarts),
    )
    _without_sorting(attack)
    return safely(model, attack.perturb, x, y)


def square(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    generator: Generator,
    *,
    queries: int,
    restarts: int,
) -> Tensor:
    """Run Square with AutoAttack's schedule, which is not rescaled to the queries; see `apgd`."""
    require_tiles("square", threat.norm, (x.shape[2], x.shape[3]))
    attack = SquareAttack(
        model,
        p_init=0.8,
        n_queries=queries,
        resc_schedule=False,
        **_settings(x, threat, generator, restarts),
    )
    _count_ties(attack)
    square_walk.walk(attack)
    return safely(model, attack.perturb, x, y)


class Judge:
    """The attacks of one AutoAttack version on one model, a target class at a time.

    `model` must give logits. Every batch starts from `seed`, as upstream's do; so does the first
    target class, and each further one from a seed of its own.
    """

    def __init__(
        self, model: nn.Module, threat: Threat, version: str, classes: int, seed: int
    ) -> None:
        _silence()
        self.model, self.threat, self.seed = model, threat, seed
        self.counts = target_classes(version, threat.norm, classes)
        # Building the suite seeds the global generators too.
        device = next(model.parameters()).device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            self.suite = AutoAttack(
                model,
                norm=NORM[threat.norm],
                eps=threat.eps,
                seed=seed,
                version=version,
                device=device,
            )
        _count_ties(self.suite.square)
        square_walk.walk(self.suite.square)
        _without_sorting(self.suite.fab)

    def targets(self, name: str) -> range:
        """Return the ranks of the classes that an attack aims at, most likely first; (0) if none.

        Rank 1 is the most likely class beside the predicted one.
        """
        return range(1, self.counts[name] + 1) if name in self.counts else range(1)

    def attack(self, name: str, x: Tensor, y: Tensor, target: int = 0) -> Tensor:
        """Run one attack, on one target class if it has any, on one batch of right examples.

        Args:
            name: an attack of `attacks(version, classes)`.
            x: (B, C, H, W) in [0, 1].
            y: (B,) int64.
            target: of `targets(name)`.

        Returns:
            (B, C, H, W): misclassified images where it succeeded, clean ones elsewhere.
        """
        perturb = {"apgd-t": self._apgd, "fab-t": self._fab, "square": self._square}.get(name)
        if perturb is None:
            return safely(self.model, self._untargeted(name), x, y)
        return safely(self.model, lambda x, y: perturb(x, y, target), x, y)

    def _untargeted(self, name: str) -> Perturb:
        """Return upstream's method, set as its own loop over the attacks sets it."""
        suite = self.suite
        if name in ("apgd-ce", "apgd-dlr"):
            suite.apgd.loss = name.removeprefix("apgd-")
        suite.fab.targeted = False
        attack = suite.fab if name == "fab" else suite.apgd
        attack.seed = self.seed
        perturb: Perturb = attack.perturb
        return perturb

    def _apgd(self, x: Tensor, y: Tensor, target: int) -> Tensor:
        """Run APGD on the targeted DLR loss as upstream's loop over targets does, once."""
        attack = self.suite.apgd_targeted
        attack.init_hyperparam(x)
        torch.manual_seed(self.seed if target == 1 else seeding.derive(self.seed, "apgd-t", target))
        # The class of rank `target` by clean logits, as upstream's loop sets it.
        attack.y_target = self.model(x).argsort(dim=1)[:, -1 - target]
        if attack.use_largereps:
            steps = [math.ceil(share * attack.n_iter_orig) for share in (0.3, 0.3)]
            steps.append(attack.n_iter_orig - sum(steps))
            radii = [times * attack.eps_orig for times in (3.0, 2.0, 1.0)]
            _, standing, _, x_adv = attack.decr_eps_pgd(x, y, radii, steps)
        else:
            _, standing, _, x_adv = attack.attack_single_run(x, y)
        return torch.where(_wide(standing == 0), x_adv, x)

    def _fab(self, x: Tensor, y: Tensor, target: int) -> Tensor:
        """Run FAB on one target; it minimises the norm, so what it finds may lie outside."""
        attack = self.suite.fab
        attack.target_class = target + 1  # upstream counts the predicted class as 1
        x_adv = attack.attack_single_run(x, y, use_rand_start=False, is_targeted=True)
        return torch.where(_wide(self.threat.distance(x_adv, x) <= self.threat.eps), x_adv, x)

    def _square(self, x: Tensor, y: Tensor, _: int) -> Tensor:
        attack = self.suite.square
        attack.seed, attack.predict = self.seed, self.model
        x_adv: Tensor = attack.perturb(x, y)
        return x_adv


def _wide(chosen: Tensor) -> Tensor:
    return chosen[:, None, None, None]


def _count_ties(attack: SquareAttack) -> None:
    """Have Square's start in l2 and l1 count a tie as broken, as its search does.

    Upstream's start waits until every margin is below 0, and its search until none is above: in
    between, where all logits are tied, it would search among no example, which ends in an error.
    The verdict is the caller's, by the class that the net names.
    """
    if attack.norm == "Linf":
        return
    margins: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = attack.margin_and_loss

    def margin_and_loss(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        margin, loss = margins(x, y)
        return torch.where((margin <= 0).all(), margin.clamp(max=-TIE), margin), loss

    attack.margin_and_loss = margin_and_loss


def _without_sorting(attack: FABAttack_PT) -> None:
    """Have FAB's own code find its steps in l∞ without sorting all pixels, a fifth of its time.

    Both are the same step but for rounding, see `hyperplane`. The package's function is left as it
    is for everybody else.
    """
    run = FABAttack.attack_single_run
    names = {**run.__globals__, "projection_linf": hyperplane.step_linf}
    changed = FunctionType(run.__code__, names, run.__name__, run.__defaults__, run.__closure__)
    attack.attack_single_run = MethodType(changed, attack)


def _silence() -> None:
    """Upstream warns through a logger of its own; the evaluation has its own warnings."""
    logger = logging.getLogger("auto-attack")
    logger.propagate = False
    logger.handlers = [logging.NullHandler()]


def _classes(model: nn.Module, x: Tensor, y: Tensor) -> int:
    return safely(model, lambda x, _: model(x), x[:1], y[:1]).shape[1]


def _settings(x: Tensor, threat: Threat, generator: Generator, restarts: int) -> dict[str, object]:
    return {
        "norm": NORM[threat.norm],
        "eps": threat.eps,
        "seed": generator.initial_seed(),
        "n_restarts": restarts,
        "device": x.device,
    }


def _apgd_settings(
    x: Tensor, threat: Threat, generator: Generator, steps: int, restarts: int
) -> dict[str, object]:
    if threat.norm == "l1" and steps < STAGES_L1:
        raise UsageError(f"--steps {steps}: APGD in l1 needs at least {STAGES_L1}")
    return {
        **_settings(x, threat, generator, restarts),
        "n_iter": steps,
        "use_largereps": threat.norm == "l1",
        "logger": logging.getLogger("auto-attack"),
    }
