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
from advkit.errors import AdvkitError, InputError, Stopped, UsageError, Verdict
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
    if wanted.plot is None:
        for option in ("title", "size", "overlay"):
            if call.typed.get(option):
                raise UsageError(f"--{option}: nothing is drawn without --plot FILE")
    if not part.constants.get("COMPARES", False):
        stage.Once(call, wanted.out)
    work = Analysis(part, wanted, call.reporter(name))
    alone = part.constants.get("ALONE")
    wants_inputs = not (alone and alone in wanted.parts)
    if wants_inputs and (work.out or work.plot):
        # All inputs are known before anything is written: a result may go over none of them.
        call = replace(call, files=tuple(stage.sources(call, " or ".join(work.kinds))))
        work.require_apart([place for text in call.files for place in _places(text)])
    with work.held():
        if not wants_inputs:
            yield from _drawn(work, lambda: iter([_record(work, [], call)]))
        elif work.compares:
            yield from _drawn(work, lambda: _compared(work, call))
        else:
            yield from _drawn(
                work,
                lambda: stage.each(
                    call,
                    name,
                    work.kinds,
                    lambda source: _record(work, [_read(work, source)], call),
                    lambda _: _judge(work),
                ),
            )


def _compared(work: Analysis, call: Call) -> Iterator[Record]:
    texts = list(stage.sources(call, " or ".join(work.kinds)))
    given = [stage.record_of(text, work.usable) for text in texts]
    inputs = work.read_all([_place(source, work.usable) for source in given])
    yield _record(work, inputs, call)
    _judge(work)


def _places(text: str) -> list[str]:
    """Return the path of an input, if it names one; what is wrong with another is said later."""
    try:
        return [records.parse(text)["path"]]
    except InputError:
        return []


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
        if analyzed.remark:
            show(f"{analyzed.name}: {analyzed.remark}")
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


def _drawn(work: Analysis, analyzed: Callable[[], Iterable[Record]]) -> Iterator[Record]:
    """Draw the picture of all records, where one was asked for, and then pass them on.

    A record is printed once all that its call was to write is in place: whoever reads one need
    not wait for the exit code to know that the picture is there.
    """
    if work.plot is None:
        yield from analyzed()
        return
    done: list[Record] = []
    failed: AdvkitError | None = None
    try:
        for record in analyzed():
            done.append(record)  # one by one: those before a failure are kept
    except AdvkitError as error:  # the other inputs are drawn all the same
        failed = error
    if not isinstance(failed, Stopped):
        work.draw()
    yield from done
    if failed is not None:
        raise failed


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
    checkpoints = part.constants.get("KINDS") == ("checkpoint",)
    usual = "runs/*/best.safetensors" if checkpoints else "runs/*/best.*.h5"
    files = part.constants.get("EXAMPLE", usual)
    return Command(
        part.name,
        part.help,
        (*part.options, *shared),
        _runner(part),
        argument="[FILE]...",
        example=f"advkit analyze {part.name} {files}",
    )


def commands() -> tuple[Command, ...]:
    """Return a command for each analysis there is."""
    return tuple(_command(part) for part in registry.parts("analyses").values())
