"""`advkit train`: adversarial training in a run folder."""

from __future__ import annotations

from collections.abc import Iterator

from advkit.artifacts.record import Record
from advkit.cli import listing
from advkit.cli.common import options, stage
from advkit.cli.common.options import Call, Command, shown
from advkit.config import settings
from advkit.errors import UsageError
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
    resolved = binding.configuration(wanted, lambda: labels_or_teacher(call))
    if wanted.print_config:
        yield resolved.toml()
        return
    from advkit.training.stage import train  # imports torch, which --help does without

    trained = train(resolved, wanted, lambda: call.reporter(name))
    yield from () if trained is None else trained.records


def labels_or_teacher(call: Call) -> Record:
    """Return the one record of soft labels or a teacher that comes in.

    Raises:
        UsageError: several, or nobody could say which of several processes reads stdin.
    """
    if ranks.world() > 1:
        raise UsageError("several processes share one stdin: give --soft-labels or --teacher")
    texts = list(
        stage.sources(call, "labels or teacher (nor --soft-labels, --teacher, --natural-teacher)")
    )
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
