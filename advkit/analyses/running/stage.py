"""The stage that analyses: inputs read, the analysis done, its table written, a record given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from keyword import iskeyword
from pathlib import Path

from advkit import data, registry
from advkit.analyses.drawing import plot
from advkit.analyses.drawing.style import PLAIN, Frame
from advkit.analyses.gathering import naming, trained
from advkit.analyses.gathering.first import First
from advkit.analyses.gathering.trained import Trained
from advkit.analyses.probing import probe as probing
from advkit.analyses.probing.probe import Probe
from advkit.analyses.running.options import AnalyzeOptions
from advkit.artifacts import (
    analysis,
    artifact,
    checkpoint,
    descriptions,
    files,
    locks,
    provenance,
)
from advkit.artifacts import record as records
from advkit.artifacts.hdf5 import Logits
from advkit.artifacts.record import Record
from advkit.artifacts.result import Result
from advkit.artifacts.soft_labels import SoftLabels
from advkit.config.location import location
from advkit.config.machine import computing
from advkit.errors import InputError, UsageError, printable
from advkit.registry import Part, sources
from advkit.runtime.reporting import Reporter

Input = Logits | SoftLabels | Trained | Probe


@dataclass(frozen=True)
class Analyzed:
    """What an analysis found, under the name of what it looked at, and its record.

    `remark` says in which settings its input differs from the first of the call; `heading` stands
    over its panels in a picture like `frame`; `source` is what the one input says of itself.
    """

    name: str
    result: Result
    record: Record
    remark: str = ""
    heading: str = ""
    frame: Frame = PLAIN
    source: naming.Named | None = None


class Analysis:
    """One call of one analysis: reads, analyses and writes, once or once an input."""

    def __init__(
        self, part: Part, options: AnalyzeOptions, reporter: Reporter | None = None
    ) -> None:
        """Refuse impossible options and outputs before any work.

        Raises:
            UsageError: there are some.
            StorageError: a folder cannot be written.
            InputError: a checkpoint that an option names is none.
        """
        options.require_fit(part)
        self.part, self.options, self.reporter = part, options, reporter or Reporter()
        self.kinds: tuple[str, ...] = part.constants.get("KINDS", ("logits",))
        self.compares = bool(part.constants.get("COMPARES", False))
        self.probes = bool(part.constants.get("PROBES"))
        self.plot = Path(options.plot) if options.plot else None
        self.out = Path(options.out) if options.out else None
        self.frame, self.labels = options.frame(), naming.parse(options.label)
        self.done: list[Analyzed] = []
        self.first: First | None = None
        self.wrote = False
        if self.plot:
            plot.check(self.plot)
        # A table that lies there already is compared, and no place to write in is needed.
        self.kept = self.out is not None and files.exists(self.out) and not options.overwrite
        if self.out:
            analysis.check(self.out, part.constants.get("FORMATS", ()), kept=self.kept)
        self.inputs: list[str] = []
        self.require_apart(self._named())
        # Read before any work, so that a wrong path costs no hours.
        named = [name for name in part.constants.get("CHECKPOINTS", ()) if options.parts.get(name)]
        self.checkpoints = {name: checkpoint.read_info(Path(options.parts[name])) for name in named}

    def _named(self) -> list[str]:
        """Return the files that options name: any text among the part's own may be one."""
        probe = self.options.probe
        where = registry.split_path(probe.data or "")[1]
        texts = [value for value in self.options.parts.values() if isinstance(value, str)]
        return [text for text in (*texts, probe.image_list, where) if text]

    def require_apart(self, inputs: Sequence[str]) -> None:
        """Check that no output is one of these inputs, or of those before.

        Raises:
            UsageError: one is.
        """
        self.inputs += inputs
        outputs = [path for path in (self.out, self.plot) if path is not None]
        files.require_apart(outputs, self.inputs)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold what is to be written, the table and the picture, until all is in place.

        Raises:
            BusyError: another process holds one of them.
            StorageError: a folder cannot be written, or a link is in the place of a file.
        """
        with ExitStack() as stack:
            if self.out:
                stack.enter_context(locks.unless(self.kept, self.out))
            if self.plot:
                stack.enter_context(locks.lock(self.plot))
            yield

    def read(self, path: str, named: str | None = None) -> Input:
        """Read an input; `named` is the data set of a checkpoint, where a record says it.

        Raises:
            InputError: missing, corrupt, or of a kind that this analysis cannot use.
            UsageError: it is where a result is to go.
        """
        self.require_apart([path])
        if self.probes:
            return self._probe(Path(path), named)
        if self.kinds == ("checkpoint",):
            return trained.trained(path)
        return artifact.read(path, self.kinds)

    @property
    def usable(self) -> tuple[str, ...]:
        """Kinds of files that may be among the inputs; those that it passes over too."""
        return (*self.kinds, "labels") if self._passes_labels else self.kinds

    @property
    def _passes_labels(self) -> bool:
        return self.compares and "logits" in self.kinds and "labels" not in self.kinds

    def read_all(self, places: Sequence[tuple[str, str | None]]) -> list[Input]:
        """Read the inputs of one call, each a path and what `read` takes beside it.

        Labels files lie where logits files do (`runs/*/*.h5`): a comparison of logits passes them
        over and says so.

        Raises:
            InputError: see `read`; nothing but labels.
        """
        labels = [path for path, _ in places if self._passes_labels and artifact.is_labels(path)]
        kept = [place for place in places if place[0] not in labels]
        if kept and labels:
            more = f" and {len(labels) - 1} more" if len(labels) > 1 else ""
            self.reporter.note(f"passed over: {labels[0]}{more}: labels, wanted: logits")
        return [self.read(*place) for place in kept or places]

    def _probe(self, path: Path, named: str | None) -> Probe:
        """Load the model of a checkpoint and its test data.

        A part's `LIMIT` is how many examples it asks about where `--limit` does not say.
        """
        options = self.options.probe
        info = checkpoint.read_info(path)
        norm, eps = options.against(info["config"])
        device = options.torch_device()
        images = data.load_for(
            info,
            location(path, info, options.data or named),
            "test",
            root=options.root,
            image_size=options.image_size,
            image_list=options.image_list,
            corruption=options.corruption,
            severity=options.severity,
            test_fraction=options.test_fraction,
            skip_broken=options.skip_broken,
            reporter=self.reporter,
        )
        return probing.probe(
            str(path),
            images,
            eps=eps,
            norm=norm,
            limit=options.limit or self.part.constants.get("LIMIT"),
            device=device,
            seed=options.seed,
            batch_size=options.batch_size,
            reporter=self.reporter,
        )

    def analyze(self, inputs: Sequence[Input]) -> Analyzed:
        """Analyse inputs, write the table where it was asked for, and return what was found.

        Raises:
            AdvkitError: as the analysis does.
        """
        module = registry.load("analyses", self.part.name)
        extra = {key: value for key, value in self.options.parts.items() if value is not None}
        arguments = {f"{key}_" if iskeyword(key) else key: value for key, value in extra.items()}
        probes = [source for source in inputs if isinstance(source, Probe)]
        device_and_threads: AbstractContextManager[None] = nullcontext()
        if probes:
            threads = self.options.probe.threads_for(probes[0].info["arch"])
            device_and_threads = computing(probes[0].device, threads)
        if self.compares:
            naming.require_known(self.labels, inputs)
        with device_and_threads, naming.labelled(self.labels):
            result: Result = module.analyze(inputs, **arguments)
        description = self._description(inputs, probes, extra)
        self._write(result, description)
        record = self._record(result, analysis.digest(result, description), inputs)
        one = len(inputs) == 1 and not self.compares
        remark = ""
        if one and self.first is not None:
            differs, words = self.first.beside(inputs[0])
            record |= {"differs": differs}
            remark = f"note: other settings than the first input's: {words}" if words else ""
        elif one:
            self.first = First(inputs[0])
        name, heading = self.part.name, result.heading
        source = naming.Named(inputs[0].path, inputs[0].info) if one else None
        if one:
            name = _title(inputs[0])
            with naming.labelled(self.labels):
                heading = _heading(inputs[0])
        analyzed = Analyzed(name, result, record, remark, heading, self.frame, source)
        self.done.append(analyzed)
        return analyzed

    def _description(
        self, inputs: Sequence[Input], probes: Sequence[Probe], extra: Mapping[str, object]
    ) -> Mapping[str, object]:
        # A checkpoint is named by its digest: equal work describes itself alike wherever it lies.
        digests = {name: info["digest"] for name, info in self.checkpoints.items()}
        places = self.part.constants.get("PLACES", ())  # nor by where the data set lies
        said = {name: value for name, value in extra.items() if name not in places}
        if self.labels:  # documents hold them
            said["label"] = [f"{printable(name)}={text}" for name, text in self.labels.items()]
        config = {"analysis": self.part.name, **said, **digests}
        parents: list[Mapping[str, object]] = [provenance.parent(source.info) for source in inputs]
        environment: descriptions.Environment = {}
        seed = 0
        if self.probes:
            config |= _questions(probes)
            parents = [parent for probe in probes for parent in probe.parents]
            parents += [provenance.parent(info) for info in self.checkpoints.values()]
            threads = self.options.probe.threads_for(probes[0].info["arch"])
            environment = {"device": probes[0].device.type, "threads": threads}
            seed = self.options.probe.seed
        foreign = sources.foreign("analyses", self.part.name)
        return provenance.describe(
            "analysis",
            config=config,
            seed=seed,
            parents=parents,
            environment=environment,
            **({"parts": sources.digests(*foreign)} if foreign else {}),
        )

    def _record(self, result: Result, digest: str, inputs: Sequence[Input]) -> Record:
        named = {"analysis": self.part.name}
        if inputs and not self.compares:
            named["input"] = records.relative(inputs[0].path)
        rows: dict[str, object] = {"groups": list(result.groups)} if result.groups else {}
        if (
            result.text and not result.brief
        ):  # a table small enough to read is small enough for the record
            rows["rows"] = [dict(zip(result.columns, row, strict=True)) for row in result.rows]
        figures = {**result.numbers, **rows, **result.more}
        return records.make("analysis", self.out, digest, **named, **figures)

    def _write(self, result: Result, description: Mapping[str, object]) -> None:
        """Write the table where it was asked for, unless this very table lies there.

        Raises:
            UsageError: the file already holds the table of an earlier input of this call.
            MismatchError: something else lies there.
        """
        if self.out is None:
            return
        if self.wrote:
            raise UsageError(f"-o {self.out} holds one table: call it once for each input")
        self.wrote = True
        if self.out.exists() and not self.options.overwrite:
            analysis.require_same(self.out, result, description)
            self.reporter.note(f"{self.out}: already done")
            return
        analysis.write(self.out, result, description)

    def draw(self) -> None:
        """Draw the picture of everything that was analysed, where it was asked for.

        Raises:
            InputError: there is nothing to draw.
            UsageError: a label is of nothing that was analysed.
        """
        results = [analyzed.result for analyzed in self.done]
        if not self.plot or not results:
            return
        if not any(result.panels for result in results):
            raise InputError("--plot: these files hold nothing that could be drawn")
        sources = [analyzed.source for analyzed in self.done if analyzed.source is not None]
        headings, frame = [analyzed.heading for analyzed in self.done], self.frame
        with naming.labelled(self.labels):
            if not self.compares and sources:
                naming.require_known(self.labels, sources)
            if frame.title and (self.compares or len(sources) == 1):
                headings = [""]  # the title stands in its place
            elif len(sources) > 1 and (frame.overlay or all(r.together for r in results)):
                headings = naming.names(sources)  # of a legend: what all share goes above
                frame = replace(frame, title=frame.title or naming.shared(sources))
            plot.save(self.plot, list(zip(headings, results, strict=True)), frame)


def _questions(probes: Sequence[Probe]) -> Mapping[str, object]:
    """Return what the models were asked, for the analysis' description; lists where several."""
    if len(probes) == 1:
        return probes[0].described
    return {key: [probe.described[key] for probe in probes] for key in probes[0].described}


def _title(source: Input) -> str:
    run = printable(Path(source.path).resolve().parent.name)
    if isinstance(source, SoftLabels):
        return f"{run} (views {source.info['config']['views']})"
    if not isinstance(source, Logits):
        return f"{run} ({source.info['role']})"
    config = source.info["config"]
    attack = f"{config['attack']}, eps {config['eps']}" if config.get("eps") else "clean"
    return f"{run} ({attack})"


def _heading(source: Input) -> str:
    """Return what stands over the panels of one input: its name, and what attacked it."""
    if isinstance(source, SoftLabels):
        return f"{naming.name(source)}, views {source.info['config']['views']}"
    attack = naming.attacked(source)
    return f"{naming.name(source)}, {attack}" if attack else naming.name(source)
