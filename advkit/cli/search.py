"""`advkit search temperature`: LTD's two-step search; `advkit search adr`: ADR's numbers."""

from __future__ import annotations

from collections.abc import Iterator

from advkit.artifacts.record import Record
from advkit.cli import train
from advkit.cli.common import options
from advkit.cli.common.options import Call, Command
from advkit.config import settings
from advkit.options import options_of
from advkit.runtime.progress import show
from advkit.search.options import AdrOptions, SearchOptions
from advkit.training.options import TrainOptions

LEFT_OUT = {"method", "objective", "labels", "wa", "ema_decay", "teacher", "temperature"}
LEFT_OUT |= {"swa_start", "ema_warmup", "ema_norms"}
LEFT_OUT |= {"teacher_digest", "natural_teacher", "natural_teacher_digest"}


ADRS_OWN = {"method", "labels", "wa", "soft_labels", "teacher", "labels_digest", "temperature"}
ADRS_OWN |= {"smoothing", "student_temperature", "tau", "lambda", "ema_decay"}
"""What the search for ADR's numbers chooses by itself, or what its runs have no use for."""


WANTED = "labels file: give it, or --soft-labels FILE (`advkit softlabels CHECKPOINT` makes one)"


def run(call: Call) -> Iterator[Record]:
    """Search and yield one record with the choice."""
    wanted = call.build(SearchOptions)
    runs = call.build(TrainOptions, settings={**call.pick(settings.options()), "method": "ltd"})
    from advkit.search.stage import search  # imports torch, which --help does without

    reporter = call.reporter("search temperature")
    searched = search(wanted, runs, lambda _: train.labels_or_teacher(call, WANTED), reporter)
    if not call.talk.quiet:
        show(searched.text)
    if searched.disagreement:
        reporter.note(searched.disagreement)
    yield searched.record


def run_adr(call: Call) -> Iterator[Record]:
    """Search and yield a record of each run, then one with the choice."""
    wanted = call.build(AdrOptions)
    given = {**call.pick(settings.options()), "labels": "adr", "wa": False}
    runs = call.build(TrainOptions, settings=given)
    from advkit.search.adr_stage import search  # imports torch, which --help does without

    table = (lambda text: None) if call.talk.quiet else show
    yield from search(wanted, runs, call.reporter("search adr"), table)


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
ADR = Command(
    "adr",
    "Find ADR's τ, λ and γ for a data set, on its validation examples alone, beside hard labels.",
    lambda: (
        *options_of(AdrOptions),
        *(option for option in settings.options() if option.name not in ADRS_OWN),
        *(option for option in train.OWN if option.name == "config"),
        options.DATA_ROOT,
        *options.MACHINE,
        options.OUT,
    ),
    run_adr,
    example="advkit search adr --data digits --epochs 30 --eps 0.15 --budget 30m",
)


def commands() -> tuple[Command, ...]:
    """Return the commands of the group."""
    return (COMMAND, ADR)
