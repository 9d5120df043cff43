"""advkit: adversarial training of image classifiers as composable stages.

On the command line `advkit train --data digits | advkit attack --autoattack`; in Python:

    run = advkit.train(data="digits", method="adr", epochs=8, out="runs/a")
    logits = advkit.evaluate(run.best, attack="pgd", steps=20, out="a.h5")
    print(advkit.analyze("calibration", logits).numbers)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from advkit.api import analyze, attack, evaluate, load, softlabels, train, use_parts

__version__ = "0.1.0"
__all__ = [
    "__version__",
    "analyze",
    "attack",
    "evaluate",
    "load",
    "softlabels",
    "train",
    "use_parts",
]


def __getattr__(name: str) -> object:
    """Import a public function when it is first asked for: until then nothing heavy is loaded."""
    if name in __all__:
        return getattr(import_module("advkit.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
