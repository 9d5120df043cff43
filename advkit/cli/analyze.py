"""`advkit analyze WHAT`: one subcommand for each analysis on the shelf."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from advkit import registry
from advkit.analyses.drawing.terminal import spark
from advkit.analyses.running.options import AnalyzeOptions, ProbeOptions
from advkit.artifacts import record as records
from advkit.artifacts.record import Record
from advkit.cli.common import options, stage
from advkit.cli.common.options import Call, Command, shown
from advkit.config.machine import DIALOGUE
from advkit.errors import Verdict
from advkit.evaluation.options import ExampleOptions, ThreatOptions
from advkit.options import Option
from advkit.registry import Part
from advkit.runtime.progress import show

if TYPE_CHECKING:
    from advkit.analyses.running.stage import Analysis, Input

OUT = "whole table into FILE.json, .csv"


def _runner(part: Part) -> Callable[[Call], Iterator[Record]]:
    def run(call: Call) -> Iterator[Record]:
        yield from records_of(part, call)

    return run


def records_of(part: Part, call: Call) -> Iterator[Record]:
    """Yield one record an input, or one over all inputs for an analysis that compares.

    Raises:
        Verdict: one that was asked for is negative; its record was printed before.
    """
    registry.part(part.folder, part.name)  # an improper one is refused before anything is read
    from advkit.analyses.running.stage import Analysis

    name = f"analyze {part.name}"
    wanted = call.build(
        AnalyzeOptions,
        parts=call.pick(part.options),
        probe=call.build(ProbeOptions) if part.constants.get("PROBES") else ProbeOptions(),
    )
    if not part.constants.get("COMPARES", False):
        stage.Once(call, wanted.out)
    work = Analysis(part, wanted, call.reporter(name))
    alone = part.constants.get("ALONE")
    if alone and alone in wanted.parts:
        yield from _drawn(work, [_record(work, [], call)])
    elif work.compares:
        texts = list(stage.sources(call, " or ".join(work.kinds)))
        given = [stage.record_of(text, work.usable) for text in texts]
        inputs = work.read_all([_place(source, work.usable) for source in given])
        yield from _drawn(work, [_record(work, inputs, call)])
        _judge(work)
    else:
        yield from _drawn(
            work,
            stage.each(
                call,
                name,
                work.kinds,
                lambda source: _record(work, [_read(work, source)], call),
                lambda _: _judge(work),
            ),
        )


def _read(work: Analysis, source: Record) -> Input:
    return work.read(*_place(source, work.kinds))


def _place(source: Record, kinds: tuple[str, ...]) -> tuple[str, str | None]:
    """Return the path of an input, and the data set of a checkpoint, where its record says it."""
    return records.wanted(source, kinds), stage.data_of(None, source)


def _record(work: Analysis, inputs: list[Input], call: Call) -> Record:
    """Analyse, show a person the result, and return the record."""
    analyzed = work.analyze(inputs)
    if not call.talk.quiet:
        if analyzed.result.text:
            show(f"{analyzed.name}\n{analyzed.result.text}")
        if sys.stderr.isatty():
            for sketch in analyzed.result.sketches:
                show("\n".join(spark(sketch)))
    return analyzed.record


def _judge(work: Analysis) -> None:
    """Fail, once its record was printed, where a verdict that was asked for is negative.

    Raises:
        Verdict: it is.
    """
    negative = work.done[-1].result.verdict
    if negative:
        raise Verdict(negative)


def _drawn(work: Analysis, records: Iterable[Record]) -> Iterator[Record]:
    """Pass the records on, then draw the picture of all of them."""
    try:
        yield from records
    finally:  # also where an input failed: the others are drawn
        work.draw()


def _probe_options(part: Part) -> tuple[Option, ...]:
    """Return the options of a part that asks a model, `--limit` with the part's own default."""
    own = part.constants.get("LIMIT")
    every = (
        *shown(ThreatOptions),
        *shown(ExampleOptions),
        options.DATA_ROOT,
        *shown(ProbeOptions),
        *options.MACHINE,
    )
    return tuple(
        replace(option, help=f"{option.help} ({own})") if option.name == "limit" and own else option
        for option in every
    )


def _command(part: Part) -> Command:
    formats = "".join(f", {suffix}" for suffix in part.constants.get("FORMATS", ()))
    out = Option("out", "str", None, f"{OUT}{formats} or .h5", DIALOGUE)
    shared: tuple[Option, ...] = (*shown(AnalyzeOptions), out, options.OVERWRITE)
    if part.constants.get("PROBES"):
        shared = (*_probe_options(part), *shared)
    files = "best.safetensors" if part.constants.get("KINDS") == ("checkpoint",) else "best.*.h5"
    return Command(
        part.name,
        part.help,
        (*part.options, *shared),
        _runner(part),
        argument="[FILE]...",
        example=f"advkit analyze {part.name} runs/*/{files}",
    )


COMMANDS = tuple(_command(part) for part in registry.parts("analyses").values())
