"""Who speaks for a stage."""

from __future__ import annotations

from advkit.cli.common.options import Call
from advkit.parallel import ranks
from advkit.runtime.progress import reporter
from advkit.runtime.reporting import Reporter


def speaker(stage: str, call: Call) -> Reporter:
    """Return the reporter of a stage; of several processes that torchrun started, one speaks."""
    # With --shard the processes do separate work, and each speaks for its own.
    if ranks.rank() > 0 and not call.typed.get("shard"):
        return Reporter()
    return reporter(stage, quiet=call.talk.quiet)
