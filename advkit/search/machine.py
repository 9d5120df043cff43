"""Where the runs of a search are trained, and what makes it the same search elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from advkit.config import resolve, stored
from advkit.config.resolve import Layer, Resolved
from advkit.config.settings import BY_MACHINE, OUTSIDE, UNTOLD, Settings
from advkit.errors import InputError
from advkit.runtime.reporting import Reporter

LATER = ("noise", "tf32", "compile_mode")
"""Options that searches of before do not name: they did what `UNTOLD` says."""


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
    flat = resolved.settings.flat()
    left = (*OUTSIDE, *(key for key in LATER if flat[key] == UNTOLD[key]))
    outside = tuple(start for key in left for start in (f"{key} = ", f"# {key} is "))
    lines = [line for line in resolved.toml().splitlines() if not line.startswith(outside)]
    return "\n".join(line.split("  #")[0] for line in lines) + "\n"


def defaults(mark: Path, kind: str) -> Layer:
    """Return what the machine decides where nobody else does, as the weakest layer.

    A search that was begun keeps its own, whatever device it goes on on.

    Args:
        mark: the `search.toml` of the search's folder, if it was begun.
        kind: of device, cpu, cuda or mps.
    """
    here, origin = resolve.by_machine(kind)
    try:
        begun = stored.unasked(mark)
    except InputError:  # none, or one that is damaged, as the ledger will say
        return here, origin
    own = {name: begun[name] for name in BY_MACHINE}
    if own == {name: here.get(name, getattr(Settings, name)) for name in BY_MACHINE}:
        return here, origin
    return own, "the search's own"
