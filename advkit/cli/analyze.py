"""`advkit analyze WHAT`: one subcommand for each analysis on the shelf."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from keyword import iskeyword
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advkit import registry
from advkit.analyses.drawing.terminal import spark
from advkit.artifacts import record as records
from advkit.artifacts.record import Record
from advkit.cli.common import machine, options, probes, stage
from advkit.cli.common.options import Command, Given
from advkit.errors import InputError, UsageError, Verdict, unknown
from advkit.options import Option
from advkit.registry import Part

if TYPE_CHECKING:
    from advkit.analyses.gathering.trained import Trained
    from advkit.analyses.probing.probe import Probe
    from advkit.artifacts.hdf5 import Logits
    from advkit.artifacts.result import Result
    from advkit.artifacts.soft_labels import SoftLabels

    Input = Logits | SoftLabels | Trained | Probe

PLOT = Option("plot", "str", None, "draw into FILE.png, .svg or .pdf", options.DIALOGUE)
OUT = "whole table into FILE.json, .csv"


def _runner(part: Part) -> Callable[[Given], Iterator[Record]]:
    def run(given: Given) -> Iterator[Record]:
        return Analysis(part, given).records()

    return run


class Analysis:
    """One call of one analysis: reads, analyses, writes, and gives a record for each result."""

    def __init__(self, part: Part, given: Given) -> None:
        self.part, self.given = part, given
        self.stage = f"analyze {part.name}"
        self.kinds: tuple[str, ...] = part.constants.get("KINDS", ("logits",))
        self.plot = Path(given["plot"]) if given["plot"] else None
        self.out = Path(given["out"]) if given["out"] else None
        self.drawn: list[tuple[str, Result]] = []
        self.wrote = False
        self.probes = bool(part.constants.get("PROBES"))
        self.negative = ""

    def records(self) -> Iterator[Record]:
        """Yield one record an input, or one over all inputs for an analysis that compares."""
        self._check()
        alone = self.part.constants.get("ALONE")
        if alone and self.given[alone] is not None:
            yield from self._finished([self._analyzed([])])
            return
        if self.part.constants.get("COMPARES", False):
            texts = list(stage.sources(self.given, " or ".join(self.kinds)))
            inputs = [self._read(stage.record_of(text, self.kinds)) for text in texts]
            yield from self._finished([self._analyzed(inputs)])
            self._judge()
        else:
            work = stage.each(
                self.given, self.stage, self.kinds, lambda s: self._analyzed([self._read(s)]),
                lambda _: self._judge(),
            )  # fmt: skip
            yield from self._finished(work)

    def _judge(self) -> None:
        """Fail, once its record was printed, where a verdict that was asked for is negative.

        Raises:
            Verdict: it is.
        """
        if self.negative:
            raise Verdict(self.negative)

    def _finished(self, work: Iterable[Record]) -> Iterator[Record]:
        """Pass the records on, then draw the picture of all of them."""
        try:
            yield from work
        finally:  # also where an input failed: the others are drawn
            if self.plot and self.drawn:
                from advkit.analyses.drawing import plot

                if not any(result.panels for _, result in self.drawn):
                    raise InputError("--plot: these files hold nothing that could be drawn")
                plot.save(self.plot, self.drawn)

    def _check(self) -> None:
        """Refuse impossible options and outputs before any work."""
        for option in self.part.options:
            value = self.given[option.name]
            option.check(value)
            if option.choices and value is not None and value not in option.choices:
                raise unknown(option.flag, value, option.choices)
        if not self.part.constants.get("COMPARES", False):
            stage.require_one(self.given)
        if self.plot:
            from advkit.analyses.drawing import plot

            if not self.part.constants.get("PICTURE", True):
                raise UsageError(f"--plot: {self.stage} has no picture")
            plot.check(self.plot)
        if self.out:
            from advkit.artifacts import analysis

            analysis.check(self.out, self.part.constants.get("FORMATS", ()))
        if self.probes:
            probes.check(self.given)
        for name, known in self.part.constants.get("WORDS", {}).items():
            text = self.given[name]
            for word in () if text is None else text.split(","):
                if word.strip() not in known:
                    raise unknown(f"--{name.replace('_', '-')}", word.strip(), known)
        self.checkpoints = probes.checkpoints(self.given, self.part)

    def _read(self, source: Record) -> Input:
        path = records.wanted(source, self.kinds)
        if self.probes:
            return probes.probe(self.given, self.stage, source, self.part)
        if self.kinds == ("checkpoint",):
            from advkit.analyses.gathering import trained

            return trained.trained(path)
        from advkit.artifacts import artifact

        return artifact.read(path, self.kinds)

    def _analyzed(self, inputs: Sequence[Input]) -> Record:
        module = registry.load("analyses", self.part.name)
        names = [option.name for option in self.part.options]
        chosen = {key: value for key, value in self.given.items() if key in names}
        extra = {key: value for key, value in chosen.items() if value is not None}
        words = {f"{key}_" if iskeyword(key) else key: value for key, value in extra.items()}
        result: Result = module.analyze(inputs, **words)
        self.negative = result.verdict
        one = len(inputs) == 1 and not self.part.constants.get("COMPARES", False)
        self.drawn.append((_title(inputs[0]) if one else self.part.name, result))
        return self._written(result, inputs, extra)

    def _written(self, result: Result, inputs: Sequence[Input], extra: dict[str, Any]) -> Record:
        from advkit.artifacts import analysis, provenance

        digests = {name: info["digest"] for name, info in self.checkpoints.items()}
        config = {"analysis": self.part.name, **extra, **digests}
        parents = [provenance.parent(each.info) for each in inputs]
        environment: dict[str, Any] = {}
        seed = 0
        if self.probes:
            config |= probes.described(inputs)
            parents, environment = probes.parents(inputs), probes.environment(self.given, inputs)
            parents += [provenance.parent(info) for info in self.checkpoints.values()]
            seed = self.given["seed"] or 0
        description = provenance.describe(
            "analysis", config=config, seed=seed, parents=parents, environment=environment
        )
        self._write(result, description)
        digest = analysis.digest(result, description)
        self._draw_text(result)
        named = {"analysis": self.part.name}
        if inputs and not self.part.constants.get("COMPARES", False):
            named["input"] = records.relative(inputs[0].path)
        rows: dict[str, Any] = {"groups": list(result.groups)} if result.groups else {}
        if result.text:  # a table small enough to read is small enough for the record
            rows["rows"] = [dict(zip(result.columns, row, strict=True)) for row in result.rows]
        told = {**result.numbers, **rows, **result.more}
        return records.make("analysis", self.out, digest, **named, **told)

    def _write(self, result: Result, description: dict[str, Any]) -> None:
        """Write the table where it was asked for, unless this very table lies there.

        Raises:
            UsageError: the file already holds the table of an earlier input of this call.
            MismatchError: something else lies there.
        """
        from advkit.artifacts import analysis

        if self.out is None:
            return
        if self.wrote:
            raise UsageError(f"-o {self.out} holds one table: call it once for each input")
        self.wrote = True
        if self.out.exists() and not self.given["overwrite"]:
            analysis.require_same(self.out, result, description)
            machine.speaker(self.stage, self.given).note(f"{self.out}: already done")
            return
        analysis.write(self.out, result, description)

    def _draw_text(self, result: Result) -> None:
        import sys

        if self.given["quiet"]:
            return
        if result.text:
            print(f"{self.drawn[-1][0]}\n{result.text}", file=sys.stderr)
        if not sys.stderr.isatty():
            return

        for figure in result.sketches:
            print("\n".join(spark(figure)), file=sys.stderr)


def _title(artifact: Input) -> str:
    info: Mapping[str, Any] = artifact.info
    config = info["config"]
    run = Path(artifact.path).resolve().parent.name
    if info["kind"] == "checkpoint":
        return f"{run} ({info['role']})"
    if "views" in config:
        return f"{run} (views {config['views']})"
    attack = f"{config['attack']}, eps {config['eps']}" if config.get("eps") else "clean"
    return f"{run} ({attack})"


def _command(part: Part) -> Command:
    formats = "".join(f", {each}" for each in part.constants.get("FORMATS", ()))
    out = Option("out", "str", None, f"{OUT}{formats} or .h5", options.DIALOGUE)
    shared: tuple[Option, ...] = (PLOT, out, options.OVERWRITE)
    if part.constants.get("PROBES"):
        shared = (*probes.options_of(part), *shared)
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
