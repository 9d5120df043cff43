"""`advkit bench`: what each method costs here, before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator

from advkit.artifacts.record import Record
from advkit.bench.options import LEFT_OUT, BenchOptions
from advkit.cli import listing
from advkit.cli.common import options
from advkit.cli.common.options import Call, Command
from advkit.config import settings
from advkit.options import options_of
from advkit.runtime import progress


def run(call: Call) -> Iterator[Record]:
    """Time every method and yield one record with the table."""
    wanted = call.build(BenchOptions, settings=call.pick(settings.options()))
    from advkit.bench.stage import bench  # imports torch, which --help does without

    def show(text: str) -> None:
        if not call.talk.quiet:
            progress.show(text)

    yield bench(wanted, call.reporter("bench"), show).record


COMMAND = Command(
    "bench",
    listing.COMMANDS["bench"].help,
    lambda: (
        *options_of(BenchOptions),
        *(option for option in settings.options() if option.name not in LEFT_OUT),
        *options.STAGE,
    ),
    run,
    example="advkit bench --data cifar10 --arch resnet18 --budget 12h",
)
