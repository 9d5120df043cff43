"""Options of the bench."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from advkit.config.machine import Machine, Output
from advkit.config.methods import PRESETS
from advkit.config.settings import METHOD, RUN
from advkit.options import declared

METHODS = "at,adr,at-awp,adr-awp,trades,ltd"
LEFT_OUT = {"method", "objective", "labels", "wa", "awp", "soft_labels", "teacher", "labels_digest"}
LEFT_OUT |= {"extra_data", "extra_fraction", "extra_digest", "workers", "split_seed", "image_list"}
LEFT_OUT |= {"init", "init_digest", "teacher_digest"}
LEFT_OUT |= {"natural_teacher", "natural_teacher_digest"}
"""What the bench chooses by itself, or what changes no time."""


@dataclass(frozen=True, kw_only=True)
class BenchOptions(Machine, Output):
    """What `advkit bench` times, and what its projections assume; `settings` are of all runs."""

    methods: str = declared(METHODS, "Bench", "methods to time; ratios are to the first")
    steps: int = declared(5, "Bench", "timed training steps of each method", limits="[1, 1e5]")
    watts: float | None = declared(
        None, "Bench", "what the machine draws, for kWh", limits="(0, 1e6]"
    )
    budget: str | None = declared(None, "Bench", "say what fits: 4h, 90m or 2d")
    clean_accuracy: float = declared(
        0.82, "Bench", "assumed of the nets under AutoAttack", limits="[0, 1]"
    )
    robust_accuracy: float = declared(
        0.5, "Bench", "assumed likewise: these cost every pass", limits="[0, 1]"
    )
    preset: str | None = declared(None, METHOD, "numbers of the paper or of its code", PRESETS)
    config: str | None = declared(None, RUN, "read options from a TOML file; flags win")
    settings: Mapping[str, Any] = field(default_factory=dict)
