"""`advkit search temperature`: LTD's two-step search."""

from __future__ import annotations

from collections.abc import Iterator

from advkit.artifacts.record import Record
from advkit.cli import train
from advkit.cli.common import options
from advkit.cli.common.options import Call, Command
from advkit.config import settings
from advkit.options import options_of
from advkit.runtime.progress import show
from advkit.search.options import SearchOptions
from advkit.training.options import TrainOptions

LEFT_OUT = {"method", "objective", "labels", "wa", "ema_decay", "teacher", "temperature"}
LEFT_OUT |= {"teacher_digest", "natural_teacher", "natural_teacher_digest"}


def run(call: Call) -> Iterator[Record]:
    """Search and yield one record with the choice."""
    wanted = call.build(SearchOptions)
    runs = call.build(TrainOptions, settings={**call.pick(settings.options()), "method": "ltd"})
    from advkit.search.stage import search  # imports torch, which --help does without

    reporter = call.reporter("search temperature")
    searched = search(wanted, runs, lambda: train.labels_or_teacher(call), reporter)
    if not call.talk.quiet:
        show(searched.text)
    if searched.disagreement:
        reporter.note(searched.disagreement)
    yield searched.record


COMMAND = Command(
    "temperature",
    "Find the teacher's temperature for LTD: substitutes bound it, students choose it.",
    lambda: (
        *options_of(SearchOptions),
        *(option for option in settings.options() if option.name not in LEFT_OUT),
        *(option for option in train.OWN if option.name == "config"),
        options.DATA_ROOT,
        *options.MACHINE,
        options.OUT,
    ),
    run,
    argument="[LABELS]",
    single=False,
    example="advkit search temperature "
    "runs/digits-small-cnn-natural-s0/best.labels-views-all.h5 --grid 1,2,5,10",
)
