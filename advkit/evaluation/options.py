"""Options of the stage that attacks checkpoints, as the command line and Python give them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from advkit import registry
from advkit.config.machine import Machine, Output, Sharded
from advkit.errors import UsageError, brief
from advkit.evaluation.settings import AUTOATTACK, BATCH_SIZE, FAST, SUITES, part_options
from advkit.formulas.threat import NORMS, parse_eps
from advkit.options import BATCHES, COUNTS, SEEDS, SIDES, StageOptions, declared

if TYPE_CHECKING:  # `--help` starts without it
    from advkit.artifacts.descriptions import Settings

VERSIONS = ("standard", "plus", "rand")


@dataclass(frozen=True, kw_only=True)
class ThreatOptions(StageOptions):
    """How far an attack may go; what is left open is the checkpoint's."""

    norm: str | None = declared(None, "Attack", "norm of the perturbation; the checkpoint's", NORMS)
    eps: str | None = declared(
        None, "Attack", "radius in pixel space, 8/255 or 0.03; the checkpoint's"
    )

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UsageError: one is impossible.
        """
        super().__post_init__()
        if self.eps is not None:
            parse_eps(self.eps, self.norm)

    def against(self, trained: Settings) -> tuple[str, str]:
        """Return norm and ε, those of a checkpoint's configuration where they are left open.

        Raises:
            UsageError: another norm without an ε of its own, or an imported net, which has neither.
        """
        norm, eps = self.norm or trained["norm"], self.eps or trained["eps"]
        if norm is None or eps is None:
            raise UsageError(
                "an imported net does not say what it was trained against: give --norm and --eps"
            )
        if norm != trained["norm"] and self.eps is None:
            raise UsageError(
                f"--norm {norm}: the checkpoint's eps {trained['eps']} is one of "
                f"{trained['norm']}; give --eps too"
            )
        return norm, eps


@dataclass(frozen=True, kw_only=True)
class ExampleOptions(StageOptions):
    """Which test examples."""

    data: str | None = declared(None, "Data", "data set; the checkpoint's")
    image_size: int | None = declared(
        None, "Data", "of folder:DIR; the checkpoint's input size", limits=SIDES
    )
    image_list: str | None = declared(None, "Data", "of imagenet: file that names the test images")
    corruption: str | None = declared(None, "Data", "of cifar10c, cifar100c: which")
    severity: int | None = declared(None, "Data", "of cifar10c, cifar100c", limits="[1, 5]")
    test_fraction: float | None = declared(
        None, "Data", "of folder:DIR without test/; the checkpoint's", limits="(0, 1)"
    )
    skip_broken: bool = declared(
        False, "Data", "of folder:DIR: leave out images that cannot be read"
    )
    limit: int | None = declared(
        None, "Data", "first N test examples, class balanced", limits=COUNTS
    )


@dataclass(frozen=True, kw_only=True)
class Which(StageOptions):
    """Which attack."""

    autoattack: bool = declared(False, "Actions", "AutoAttack: APGD-CE, APGD-T, FAB-T, Square")
    version: str | None = declared(None, "Attack", "AutoAttack's version (standard)", VERSIONS)
    fast: bool = declared(False, "Actions", "APGD-CE and APGD-T: an estimate, not AutoAttack")
    attack: str | None = declared(None, "Attack", "one attack by name")
    surrogate: str | None = declared(None, "Attack", "checkpoint that transfer attacks")


@dataclass(frozen=True, kw_only=True)
class AttackOptions(Which, ThreatOptions, ExampleOptions, Machine, Sharded, Output):
    """Options of `advkit attack`; `parts` are those of the attack itself."""

    seed: int = declared(0, "Attack", "seed of starts and searches", limits=SEEDS)
    batch_size: int = declared(BATCH_SIZE, "Machine", "examples in a batch", limits=BATCHES)
    save_images: bool = declared(False, "Actions", "keep the adversarial images too")
    parts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check what goes together.

        Raises:
            UsageError: no attack or several, or an option that the one chosen has no use for.
        """
        if sum(map(bool, (self.autoattack, self.fast, self.attack))) != 1:
            raise UsageError("choose one: --autoattack, --fast, or --attack NAME")
        if not self.autoattack and self.version:
            raise UsageError("--version belongs to --autoattack")
        self._check_surrogate()
        super().__post_init__()
        for name in ("eps", "norm", "save_images"):
            if self.attack == "none" and getattr(self, name):
                raise UsageError(f"--{name.replace('_', '-')} has no meaning for --attack none")

    def _check_surrogate(self) -> None:
        needs: tuple[str, ...] = ()
        if self.attack:
            needs = tuple(registry.part("attacks", self.attack).constants.get("NEEDS", ()))
        if self.surrogate and "surrogate" not in needs:
            raise UsageError("--surrogate belongs to --attack transfer")
        if "surrogate" in needs and not self.surrogate:
            raise UsageError(f"--attack {self.attack} needs --surrogate CHECKPOINT")

    @property
    def name(self) -> str:
        """What is run: `autoattack`, `fast` or a part's name."""
        return self.attack or (FAST if self.fast else AUTOATTACK)

    def own(self) -> dict[str, Any]:
        """Return the options of the attack itself, defaults filled in.

        Raises:
            UsageError: one that it does not have.
        """
        if self.name not in SUITES:
            return part_options(self.name, self.parts)
        for key in (key for key, value in self.parts.items() if value is not None):
            raise UsageError(f"--{key.replace('_', '-')} has no meaning for --{self.name}")
        return {}


def named(attack: str) -> dict[str, bool | str]:
    """Return the options that choose an attack by one name, suites among them.

    >>> named("fast"), named("pgd")
    ({'fast': True}, {'attack': 'pgd'})

    Raises:
        UsageError: no text.
    """
    if not isinstance(attack, str):
        raise UsageError(f"{brief(repr(attack))} names no attack")
    return {attack: True} if attack in SUITES else {"attack": attack}
