"""`advkit train`: adversarial training in a run folder."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial

from advkit.artifacts.record import Record
from advkit.cli import listing
from advkit.cli.common import options, plain, stage
from advkit.cli.common.options import Call, Command, shown
from advkit.config import settings
from advkit.errors import InputError, UsageError
from advkit.parallel import ranks
from advkit.training import binding
from advkit.training.options import TrainOptions

OWN = shown(TrainOptions)


def run(call: Call, name: str = "train", **fixed: str) -> Iterator[Record | str]:
    """Resolve, train, and yield the records of the checkpoints asked for.

    Args:
        call: the command line.
        name: how the stage is called in messages.
        fixed: settings that the stage does not leave open.
    """
    wanted = call.build(TrainOptions, settings={**call.pick(settings.options()), **fixed})
    # Later: stdin is read only where no option names the labels, and may be a terminal.
    resolved = binding.configuration(wanted, partial(labels_or_teacher, call))
    if wanted.print_config:
        wanted.loggers  # noqa: B018  (refuses an unknown one: it is no part of what is printed)
        yield plain.escaped(resolved.toml(), sys.stdout.encoding if sys.stdout else None)
        return
    from advkit.training.stage import train  # imports torch, which --help does without

    trained = train(resolved, wanted, lambda: call.reporter(name))
    yield from () if trained is None else trained.records


def labels_or_teacher(call: Call, wanted: str) -> Record:
    """Return the one record of soft labels or a teacher that comes in.

    Args:
        call: the command line.
        wanted: what it is to be, how it is given and how it is made.

    Raises:
        UsageError: none at a terminal, several, or nobody could say which of several processes
            reads stdin.
        InputError: none on stdin.
    """
    if ranks.world() > 1:
        raise UsageError("several processes share one stdin: give --soft-labels or --teacher")
    if not call.files and sys.stdin is not None and sys.stdin.isatty():
        raise UsageError(f"no {wanted}, or pipe in the stage before")
    texts = list(stage.sources(call, wanted))
    if texts[0].startswith(stage.EMPTY):
        raise InputError(f"no {wanted}; on stdin the stage before gave nothing")
    if len(texts) > 1:
        raise UsageError(f"a run takes one labels file or teacher; {len(texts)} came in")
    return stage.record_of(texts[0], ("labels", "checkpoint"))


COMMAND = Command(
    "train",
    listing.COMMANDS["train"].help,
    lambda: (
        *settings.options(),
        *OWN,
        *options.STAGE,
    ),
    run,
    listing=("objectives", "labels", "augment", "models", "data"),
    example="advkit train --data digits --method adr",
)
