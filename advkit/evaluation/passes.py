"""The passes over the examples that an evaluation means, and who needs what for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TypedDict

import torch
from torch import Tensor, nn

from advkit import registry
from advkit.artifacts.descriptions import Checkpoint
from advkit.errors import MismatchError, UsageError
from advkit.evaluation.settings import AUTOATTACK, SUITES, AttackSettings
from advkit.registry import sources
from advkit.runtime import seeding

FILL_STEPS = 20
"""PGD's steps for the examples that get no iterate from the attack itself."""

Run = Callable[[Tensor, Tensor, int], Tensor]


@dataclass(frozen=True)
class Pass:
    """One attack over the examples: `run(x, y, name of the batch)` gives adversarial images.

    `judges`: a misclassification counts as broken by it. `everyone`: it also visits examples
    that were wrong when clean, and its logits stand for all whom nothing broke. `attack` is the
    place of its attack among those that judge.
    """

    name: str
    run: Run
    judges: bool
    everyone: bool
    attack: int = 0


class Implementation(TypedDict, total=False):
    """The package behind an attack, and how many classes its targeted attacks aim at."""

    implementation: str
    target_classes: int
    fab_target_classes: int


@dataclass(frozen=True)
class Surrogate:
    """The net whose gradients a transfer attack follows, and its checkpoint's description."""

    model: nn.Module
    info: Checkpoint


def needs_surrogate(attack: str) -> bool:
    """Whether an attack follows the gradients of another net.

    Raises:
        UsageError: no such attack.
    """
    if attack in SUITES:
        return False
    return "surrogate" in registry.part("attacks", attack).constants.get("NEEDS", ())


def require_surrogate(
    settings: AttackSettings, info: Checkpoint, surrogate: Surrogate | None
) -> None:
    """Check that a surrogate is there where one is needed, and can stand in for the model.

    Raises:
        UsageError: there is one and none is needed, or the other way round.
        MismatchError: other classes, another input shape, or not the one the settings name.
    """
    if needs_surrogate(settings.attack) != (surrogate is not None):
        raise UsageError(
            f"--attack {settings.attack} needs --surrogate CHECKPOINT"
            if surrogate is None
            else f"--surrogate has no meaning for --attack {settings.attack}"
        )
    if surrogate is None:
        return
    if surrogate.info["digest"] != settings.surrogate:
        raise MismatchError("the surrogate is not the one that was named: did its file change?")
    for what, mine, its in (
        ("classes", info["data"]["classes"], surrogate.info["data"]["classes"]),
        ("input shape", info["model"]["input_shape"], surrogate.info["model"]["input_shape"]),
    ):
        if list(mine) != list(its):
            raise MismatchError(f"the surrogate's {what} differ from the model's: {its}, {mine}")


def parts(settings: AttackSettings, classes: int, info: Checkpoint) -> dict[str, str]:
    """Return what the parts of an evaluation mean, by `shelf/name`; see `registry.sources`."""
    # PGD also gives iterates to those whom the attack itself leaves none.
    names = {settings.attack, *attack_names(settings, classes), "pgd"}
    attacks = sorted(names & registry.parts("attacks").keys())
    chosen = [("attacks", name) for name in attacks]
    images = sources.foreign("data", registry.split_path(settings.data)[0])
    return sources.digests(*chosen, *sources.family(info["arch"]), *images)


def attack_names(settings: AttackSettings, classes: int) -> list[str]:
    """Return the attacks that judge, in their order.

    Raises:
        UsageError: the attack's loss needs more classes.
    """
    if settings.attack == "none":
        return []
    if settings.attack not in SUITES and not _like_autoattack(settings.attack):
        return [settings.attack]
    from advkit.attacks.upstream import autoattack

    if settings.attack not in SUITES:
        autoattack.require_classes(settings.attack, classes)
        return [settings.attack]
    names = autoattack.attacks(settings.version, classes)
    # `fast` keeps AutoAttack's order and leaves attacks out.
    return [name for name in names if settings.attack == AUTOATTACK or name in autoattack.FAST]


def require_size(settings: AttackSettings, classes: int, size: tuple[int, int]) -> None:
    """Check that every attack that judges works on images of a size (height, width).

    Raises:
        UsageError: one does not.
    """
    names = attack_names(settings, classes)
    if "square" in names:
        from advkit.attacks.upstream import autoattack

        autoattack.require_tiles("square", settings.norm, size)


def implementation(settings: AttackSettings, classes: int) -> Implementation:
    """Return what the description says of the package behind an attack, if there is one."""
    if settings.attack not in SUITES and not _like_autoattack(settings.attack):
        return {}
    from advkit.attacks.upstream import autoattack

    description: Implementation = {"implementation": autoattack.package()}
    if settings.attack in SUITES:
        targets = autoattack.target_classes(settings.version, settings.norm, classes)
        # Verdicts may change with the scheme of batches as with a version of the package.
        description["implementation"] += f", {autoattack.SCHEME}"
        description["target_classes"] = targets["apgd-t"]
        if targets["fab-t"] != targets["apgd-t"]:
            description["fab_target_classes"] = targets["fab-t"]
    elif "targets" in (settings.options or {}):
        description["target_classes"] = min((settings.options or {})["targets"], classes - 1)
    return description


def passes(
    model: nn.Module,
    settings: AttackSettings,
    classes: int,
    surrogate: Surrogate | None = None,
) -> list[Pass]:
    """Return the passes of an evaluation, in their order.

    AutoAttack and its single attacks give clean images where they fail. A last pass gives those
    examples, and those that were wrong when clean, their logits under attack: the attack's own
    iterates of highest loss where it can return them (`highest`), else those of PGD-20.
    """
    names = attack_names(settings, classes)
    if settings.attack in SUITES:
        return [*_suite(model, settings, classes, names), _pgd(model, settings)]
    if not names:
        return []
    (name,) = names
    options: dict[str, object] = {**(settings.options or {})}
    if surrogate is not None:
        options["surrogate"] = surrogate.model
    module = registry.load("attacks", name)
    run = _runner(model, name, module.attack, settings, options)
    if not _like_autoattack(name):
        return [Pass(name, run, True, True)]
    return [Pass(name, run, True, False), _rest(model, name, module, settings, options)]


def _suite(
    model: nn.Module, settings: AttackSettings, classes: int, names: Sequence[str]
) -> list[Pass]:
    """Return a pass for each attack, or for each of its targets: so its batches are refilled."""
    from advkit.attacks.upstream import autoattack

    judge = autoattack.Judge(model, settings.threat, settings.version, classes, settings.seed)

    # A function of its own: a lambda in the loop would see the last name and target only.
    def runner(name: str, target: int) -> Run:
        return lambda x, y, _: judge.attack(name, x, y, target)

    return [
        Pass(
            f"{name} {target}/{targets[-1]}" if target else name,
            runner(name, target),
            True,
            False,
            place,
        )
        for place, name in enumerate(names)
        for targets in [judge.targets(name)]
        for target in targets
    ]


def _like_autoattack(name: str) -> bool:
    """Whether a part runs as AutoAttack does.

    It sees right examples only, starts every batch from the evaluation's own seed, and returns
    clean images where it fails.
    """
    return bool(registry.part("attacks", name).constants.get("LIKE_AUTOATTACK", False))


def _rest(
    model: nn.Module,
    name: str,
    module: ModuleType,
    settings: AttackSettings,
    options: Mapping[str, object],
) -> Pass:
    highest = getattr(module, "highest", None)
    if highest is None:
        return _pgd(model, settings)
    run = _runner(model, name, highest, settings, options)
    return Pass(_for_the_rest(name), run, False, True)


def _pgd(model: nn.Module, settings: AttackSettings) -> Pass:
    attack = registry.load("attacks", "pgd").attack
    # Calibration under attack is asked about cross-entropy itself, at the net's own scale.
    run = _runner(model, "pgd", attack, settings, {"steps": FILL_STEPS, "loss": "ce"})
    return Pass(_for_the_rest(f"pgd-{FILL_STEPS}"), run, False, True)


def _for_the_rest(name: str) -> str:
    return f"{name} for the rest"


def last_pass(attack: str) -> str | None:
    """Return the name of the pass that gives logits to those whom nothing broke, if there is one.

    Raises:
        UsageError: no such attack.
    """
    pgd = _for_the_rest(f"pgd-{FILL_STEPS}")
    if attack in SUITES:
        return pgd
    if not _like_autoattack(attack):
        return None
    return _for_the_rest(attack) if hasattr(registry.load("attacks", attack), "highest") else pgd


def _runner(
    model: nn.Module,
    name: str,
    attack: Callable[..., Tensor],
    settings: AttackSettings,
    options: Mapping[str, object],
) -> Run:
    same = _like_autoattack(name)

    def run(x: Tensor, y: Tensor, batch: int) -> Tensor:
        # As the upstream package: its attacks begin every batch from one seed.
        if same:
            generator = torch.Generator().manual_seed(settings.seed)
        else:
            generator = seeding.generator(
                settings.seed, "evaluation", name, batch, *settings.stream
            )
        return attack(model, x, y, settings.threat, generator=generator, **options)

    return run
