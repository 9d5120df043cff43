"""How far an attack is inside one batch: the passes that its net has made, told now and then."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import nn
from torch.jit import ScriptModule

from advkit.runtime.reporting import Reporter

EVERY = 0.2
"""Seconds between two words to a person; until they are over a pass costs a look at the clock."""


@contextmanager
def counted(models: Sequence[nn.Module], what: str, reporter: Reporter) -> Iterator[None]:
    """Have a person hear of the forward passes that nets make meanwhile.

    Steps, queries and restarts of any attack are passes, whoever wrote it, so that no attack has
    to tell of its own. A net in TorchScript takes no hooks: its passes are not counted.

    Args:
        models: whose calls are counted, together.
        what: goes on, for the reporter.
        reporter: hears the number of passes.
    """
    count, last = 0, time.monotonic()

    def seen(module: nn.Module, inputs: object) -> None:
        nonlocal count, last
        del module, inputs
        count += 1
        if (now := time.monotonic()) - last >= EVERY:
            last = now
            reporter.inside(f"{what} pass", done=count)

    reporter.inside(what)
    hooks = [
        model.register_forward_pre_hook(seen)
        for model in models
        if not isinstance(model, ScriptModule)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        reporter.inside("")
