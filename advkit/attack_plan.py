"""What an evaluation does: its settings, and the passes over the examples that they mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from advkit import registry, seeding
from advkit.errors import UsageError
from advkit.threat import Threat, parse_eps

FILL_STEPS = 20
AUTOATTACK = "autoattack"


@dataclass(frozen=True)
class AttackSettings:
    """What an evaluation is: the attack, its threat, and on what.

    `attack` is `autoattack` or a part's name; `options` are the part's own; `eps` is text, so
    that 8/255 stays exact.
    """

    attack: str
    norm: str
    eps: str
    data: str
    seed: int = 0
    batch_size: int = 250
    version: str = "standard"
    limit: int | None = None
    save_images: bool = False
    options: Mapping[str, Any] | None = None

    @property
    def threat(self) -> Threat:
        """The norm ball.

        Raises:
            UsageError: ε or norm make no sense.
        """
        return Threat(self.norm, parse_eps(self.eps, self.norm))

    def described(self) -> dict[str, Any]:
        """The configuration as the artifact carries it: without paths."""
        common = {
            "attack": self.attack,
            "data": registry.split_path(self.data)[0],
            "seed": self.seed,
            "batch_size": self.batch_size,
            "limit": self.limit,
        }
        if self.attack == "none":
            return common
        common |= {"norm": self.norm, "eps": self.eps, "save_images": self.save_images}
        if self.attack == AUTOATTACK:
            return {**common, "version": self.version}
        return {**common, **(self.options or {})}

    @property
    def file_stem(self) -> str:
        """What the output is called behind the checkpoint's name: attack and what is unusual."""
        words = [self.attack]
        if self.attack == AUTOATTACK and self.version != "standard":
            words.append(self.version)
        if self.attack != "none":
            words += [self.norm, self.eps.replace("/", "-")]
        if self.limit:
            words.append(f"n{self.limit}")
        if self.seed:
            words.append(f"s{self.seed}")
        if self.attack != AUTOATTACK:
            defaults = part_options(self.attack, {})
            changed = {k: v for k, v in (self.options or {}).items() if v != defaults[k]}
            words += [f"{key}-{value}".replace("/", "-") for key, value in changed.items()]
        return "-".join(words)


@dataclass(frozen=True)
class Pass:
    """One attack over the examples: `run(x, y, name of the batch)` gives adversarial images.

    `judges`: a misclassification counts as broken by it. `everyone`: it also visits examples
    that were wrong when clean, and its logits stand for all whom nothing broke.
    """

    name: str
    run: Callable[[Tensor, Tensor, int], Tensor]
    judges: bool
    everyone: bool


def attack_names(settings: AttackSettings, classes: int) -> list[str]:
    """Return the attacks that judge, in their order."""
    if settings.attack == "none":
        return []
    if settings.attack != AUTOATTACK:
        return [settings.attack]
    from advkit.attacks import _autoattack

    return list(_autoattack.attacks(settings.version, classes))


def passes(model: nn.Module, settings: AttackSettings, classes: int) -> list[Pass]:
    """Return the passes of an evaluation, in their order."""
    names = attack_names(settings, classes)
    if settings.attack == AUTOATTACK:
        from advkit.attacks import _autoattack

        judge = _autoattack.Judge(model, settings.threat, settings.version, classes, settings.seed)

        def runner(name: str) -> Callable[[Tensor, Tensor, int], Tensor]:
            return lambda x, y, _: judge.attack(name, x, y)

        fill = _part_runner(model, "pgd", settings, {"steps": FILL_STEPS})
        judges = [Pass(name, runner(name), True, False) for name in names]
        return [*judges, Pass("pgd for the rest", fill, False, True)]
    return [
        Pass(name, _part_runner(model, name, settings, settings.options or {}), True, True)
        for name in names
    ]


def _part_runner(
    model: nn.Module, name: str, settings: AttackSettings, options: Mapping[str, Any]
) -> Callable[[Tensor, Tensor, int], Tensor]:
    attack = registry.load("attacks", name).attack

    def run(x: Tensor, y: Tensor, batch: int) -> Tensor:
        generator = seeding.generator(settings.seed, "evaluation", name, batch)
        found: Tensor = attack(model, x, y, settings.threat, generator=generator, **options)
        return found

    return run


def part_options(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of an attack with its defaults filled in.

    Raises:
        UsageError: unknown attack, or an option that it does not have.
    """
    part = registry.part("attacks", name)
    options = {option.name: option.default for option in part.options}
    for key, value in given.items():
        if value is None:
            continue
        if key not in options:
            raise UsageError(f"--{key.replace('_', '-')} has no meaning for --attack {name}")
        option = next(each for each in part.options if each.name == key)
        option.check(value)
        options[key] = value
    return options
