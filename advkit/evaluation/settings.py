"""What an evaluation is: the attack, its threat and options, and on what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from advkit import registry
from advkit.errors import UsageError
from advkit.formulas.threat import Threat, parse_eps, require_step
from advkit.parallel.shards import Shard

AUTOATTACK, FAST = "autoattack", "fast"
SUITES = {AUTOATTACK: "AutoAttack", FAST: "APGD-CE with APGD-T"}
"""Attacks made of several, and what a person reads; the fast one is never called AutoAttack."""
BATCH_SIZE = 250
"""Examples in a batch of a stage that asks a trained model."""


@dataclass(frozen=True)
class AttackSettings:
    """What an evaluation is: the attack, its threat, and on what.

    `attack` is `autoattack`, `fast` or a part's name; `options` are the part's own; `eps` is
    text, so that 8/255 stays exact; `surrogate` is the digest of the checkpoint that `transfer`
    attacks; `shard` says which examples, if not all.
    """

    attack: str
    norm: str
    eps: str
    data: str
    seed: int = 0
    batch_size: int = BATCH_SIZE
    version: str = "standard"
    limit: int | None = None
    save_images: bool = False
    options: Mapping[str, Any] | None = None
    surrogate: str | None = None
    shard: Shard | None = None

    @property
    def threat(self) -> Threat:
        """The norm ball.

        Raises:
            UsageError: ε, norm or a step size make no sense.
        """
        threat = Threat(self.norm, parse_eps(self.eps, self.norm))
        if self.options and "step_size" in self.options:
            require_step(str(self.options["step_size"]), threat.eps)
        return threat

    def described(self) -> dict[str, object]:
        """The configuration as the artifact carries it: without paths."""
        # What has no meaning for an attack is left out: equal work has an equal description.
        common: dict[str, object] = {
            "attack": self.attack,
            "data": registry.split_path(self.data)[0],
            "seed": self.seed,
            "batch_size": self.batch_size,
            "limit": self.limit,
        }
        if self.shard is not None:
            common["shard"] = self.shard.described
        if self.attack == "none":
            return common
        common |= {"norm": self.norm, "eps": self.eps, "save_images": self.save_images}
        if self.attack == AUTOATTACK:
            return {**common, "version": self.version}
        if self.surrogate is not None:
            common["surrogate"] = self.surrogate
        return {**common, **(self.options or {})}

    @property
    def stream(self) -> tuple[int, ...]:
        """What names a shard's random streams, so that no two shards draw the same starts."""
        return () if self.shard is None else (self.shard.number, self.shard.count)

    @property
    def file_stem(self) -> str:
        """What the output is called behind the checkpoint's name: attack and what is unusual."""
        # The usual goes without saying, so that usual names stay short.
        words = [self.attack]
        if self.attack == AUTOATTACK and self.version != "standard":
            words.append(self.version)
        if self.attack != "none":
            words += [self.norm, self.eps.replace("/", "-")]
        if self.limit:
            words.append(f"n{self.limit}")
        if self.seed:
            words.append(f"s{self.seed}")
        if self.surrogate:
            words.append(f"from-{self.surrogate.removeprefix('sha256:')[:8]}")
        if self.attack not in SUITES:
            defaults = part_options(self.attack, {})
            changed = {k: v for k, v in (self.options or {}).items() if v != defaults[k]}
            words += [f"{key}-{value}".replace("/", "-") for key, value in changed.items()]
        return "-".join(words)


def part_options(name: str, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of an attack with its defaults filled in.

    Raises:
        UsageError: unknown attack, or an option that it does not have.
    """
    known = {option.name: option for option in registry.part("attacks", name).options}
    options = {key: option.default for key, option in known.items()}
    for key, value in chosen.items():
        if value is None:
            continue
        if key not in known:
            raise UsageError(f"--{key.replace('_', '-')} has no meaning for --attack {name}")
        known[key].require(value)
        options[key] = value
    return options
