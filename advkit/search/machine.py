"""Where the runs of a search are trained, and what makes it the same search elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from advkit.config.resolve import Resolved
from advkit.config.settings import OUTSIDE
from advkit.runtime.reporting import Reporter


@dataclass(frozen=True)
class Machine:
    """Where and how trials run."""

    device: torch.device
    threads: int
    data_root: Path | None
    reporter: Reporter


def identity(resolved: Resolved) -> str:
    """Return what the runs of a search have in common, as text: the settings, a line each."""
    # Paths and the number of workers change no figure: a search may go on elsewhere.
    outside = tuple(start for key in OUTSIDE for start in (f"{key} = ", f"# {key} is "))
    lines = [line for line in resolved.toml().splitlines() if not line.startswith(outside)]
    return "\n".join(line.split("  #")[0] for line in lines) + "\n"
