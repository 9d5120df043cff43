"""The stages as Python functions: what `import advkit` offers.

Each builds the options that the command line would build and calls the same stage, so that both
write the same files with the same digests. Errors are those of `advkit.errors`. Nothing is
printed unless `progress=True`; the caller's random streams, threads, module modes and gradient
flags are left as they are. Ctrl-C raises `KeyboardInterrupt` and leaves work to go on from:
call the same function again (`train` with `resume=True`).
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from advkit import models, registry
from advkit.analyses.drawing import plot as drawing
from advkit.analyses.running.options import AnalyzeOptions, ProbeOptions
from advkit.analyses.running.stage import Analysis, Analyzed
from advkit.artifacts import soft_labels
from advkit.artifacts.descriptions import Checkpoint, Metrics
from advkit.artifacts.hdf5 import Logits
from advkit.artifacts.record import Record
from advkit.artifacts.result import Number
from advkit.artifacts.soft_labels import SoftLabels
from advkit.config import coercion, settings
from advkit.errors import InputError, UsageError, unknown
from advkit.evaluation import arrays
from advkit.evaluation import stage as evaluation
from advkit.evaluation.options import AttackOptions, named
from advkit.evaluation.settings import AUTOATTACK, AttackSettings
from advkit.evaluation.verdicts import figures
from advkit.options import Option, StageOptions, options_of
from advkit.parallel import ranks
from advkit.runtime import progress as showing
from advkit.runtime import reading, signals
from advkit.runtime.reporting import Reporter
from advkit.softlabels import stage as labelling
from advkit.softlabels.options import SoftlabelsOptions
from advkit.training import binding
from advkit.training import stage as training
from advkit.training.options import TrainOptions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "Attacked",
    "Info",
    "Model",
    "Result",
    "Run",
    "analyze",
    "attack",
    "evaluate",
    "load",
    "softlabels",
    "train",
    "use_parts",
]


@runtime_checkable
class InFile(Protocol):
    """What lies in a file: logits, labels."""

    @property
    def path(self) -> str | Path:
        """Where."""


Place = str | Path | InFile
"""Where a file is, or what an earlier stage returned; of a `Run` its best checkpoint."""


@dataclass(frozen=True)
class Run:
    """A run that went to its end.

    `path` is its folder, `record` what `advkit train` prints of its best checkpoint.
    """

    path: Path
    best: Path
    record: Record

    @property
    def final(self) -> Path:
        """The checkpoint after the last epoch; the weight average's, if that is selected."""
        return self.path / self.best.name.replace("best", "final", 1)

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """A row of figures an epoch."""
        lines = reading.text(self.path / "metrics.jsonl").splitlines()
        return [json.loads(line) for line in lines]


@dataclass(frozen=True)
class Info:
    """What a checkpoint says of its net; `described` is all of it."""

    digest: str
    arch: str
    method: str
    data: str
    classes: tuple[str, ...]
    input_shape: tuple[int, int, int]
    norm: str | None
    eps: str | None
    metrics: Metrics | None
    described: Checkpoint


class Model(nn.Module):
    """A net from a checkpoint: pixels (B, C, H, W) float32 in [0, 1] to logits (B, K)."""

    info: Info


Values = TypeVar("Values", Tensor, NDArray[np.generic])
"""Arrays of one kind: what comes in as NumPy's goes out as NumPy's."""


@dataclass(frozen=True)
class Attacked(Generic[Values]):
    """What an attack made of N examples; arrays are of the kind that the images came in.

    `images` (N, C, H, W) float32 lie within ε; `logits` and `clean_logits` are (N, K) float32.
    `broken_by` (N,) int8 is a position in `attacks`, −1 where none succeeded, −2 where the model
    was wrong on the clean image. `ci95` is the Wilson interval of `robust_accuracy`.
    """

    images: Values
    logits: Values
    clean_logits: Values
    broken_by: Values
    attacks: tuple[str, ...]
    clean_accuracy: float
    robust_accuracy: float
    ci95: tuple[float, float]
    accuracy_after: Mapping[str, float]


@dataclass(frozen=True)
class Result:
    """What an analysis gives: `numbers` by name, the table's `columns`, `rows`, the record."""

    analyzed: Analyzed

    @property
    def numbers(self) -> Mapping[str, Number]:
        """Figures under the names that records have."""
        return self.analyzed.result.numbers

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the table's columns."""
        return self.analyzed.result.columns

    @property
    def rows(self) -> tuple[tuple[object, ...], ...]:
        """The whole table."""
        return self.analyzed.result.rows

    @property
    def record(self) -> Record:
        """What `advkit analyze` prints."""
        return self.analyzed.record

    @property
    def verdict(self) -> str:
        """Why a verdict that was asked for is negative; empty if it is not."""
        return self.analyzed.result.verdict

    def figure(self) -> Figure:
        """Return the picture as a matplotlib figure, in no window.

        Raises:
            UsageError: the analysis has none.
        """
        return drawing.figure([(self.analyzed.heading, self.analyzed.result)], self.analyzed.frame)


def train(*, progress: bool = False, **options: object) -> Run:
    """Train a classifier in a run folder, or find that run done.

    Args:
        progress: show it on stderr.
        options: those of `advkit train`, with `_` for `-`: `data="digits", method="adr",
            epochs=8, out="runs/a"`; `lambda_` is `--lambda`. A run that was stopped goes on with
            `resume=True`.

    Raises:
        UsageError: an option that does not exist or has no meaning here.
        AdvkitError: see `errors`.
    """
    _require_one_process("train")
    values = _plain(options)
    if "arch" in values:  # the options of a net's own file are known once it is read
        values["arch"] = registry.arch_named(str(values["arch"]))
    every = settings.options()
    chosen = _taken(values, every)
    wanted = _built(TrainOptions, values, {option.name for option in every}, settings=chosen)
    if wanted.print_config:
        raise UsageError("print_config is for the command line: it prints and trains nothing")
    if "emit" in values:
        raise UsageError("emit is for the command line: a Run has its folder, with all checkpoints")
    reporter = _reporter("train", progress)
    with _guest():
        resolved = binding.configuration(wanted)
        done = training.train(resolved, wanted, lambda: reporter)
    assert done is not None  # one process leads itself
    # With --wa the weight average is what is selected and reported.
    suffix = "-ema" if resolved.settings.wa else ""
    return Run(done.folder.path, done.folder.checkpoint(f"best{suffix}"), done.records[0])


def use_parts(*places: str | Path) -> None:
    """Use your own parts in this process, as `--parts` does on the command line.

    Folders have the package's own shape (`DIR/labels/halved.py`); FILE.py[:function] is one net.
    What `ADVKIT_PARTS` names and installed packages offer is there without it.

    Raises:
        UsageError: no such place, or a part of it has a name that is there already.
    """
    registry.use(*places)


def load(checkpoint: Place | Run, *, device: str = "cpu") -> Model:
    """Return the net of a checkpoint, in eval mode, with what is known of it in `.info`.

    Raises:
        InputError: missing, corrupt or foreign file.
        MismatchError: its tensors are not those of the architecture that it names.
    """
    with _guest():
        model, info = models.load(_path(checkpoint), device)
    trained = info["config"]
    channels, height, width = info["model"]["input_shape"]
    net = cast(Model, model)
    net.info = Info(
        digest=info["digest"],
        arch=info["arch"],
        method=info["method"],
        data=info["data"]["name"],
        classes=tuple(info["data"]["classes"]),
        input_shape=(channels, height, width),
        norm=trained["norm"],
        eps=trained["eps"],
        metrics=info.get("metrics"),
        described=info,
    )
    return net


def attack(
    model: nn.Module,
    x: Values,
    y: Tensor | NDArray[np.generic],
    *,
    attack: str = "autoattack",
    norm: str = "linf",
    eps: float | str = "8/255",
    seed: int = 0,
    batch_size: int = 250,
    version: str = "standard",
    surrogate: nn.Module | None = None,
    progress: bool = False,
    **options: object,
) -> Attacked[Values]:
    """Attack any net on images in memory; what the net says alone decides who is broken.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(1, 2, bias=False)).requires_grad_(False)
    >>> net[1].weight[:] = torch.tensor([[1.0], [-1.0]])
    >>> x, y = torch.tensor([0.2, 0.6]).view(2, 1, 1, 1), torch.tensor([0, 0])
    >>> attacked = attack(net, x, y, attack="pgd", eps=0.3)
    >>> attacked.clean_accuracy, attacked.robust_accuracy, attacked.broken_by.tolist()
    (1.0, 1.0, [-1, -1])

    Args:
        model: pixels (B, C, H, W) float32 in [0, 1] to logits (B, K), on any device.
        x: images (N, C, H, W) in [0, 1].
        y: labels (N,) in 0..K−1.
        attack: `autoattack`, `fast`, or an attack's name.
        norm: linf, l2 or l1.
        eps: radius in pixel space, 8/255 or "8/255".
        seed: of starts and searches.
        batch_size: examples in a batch.
        version: AutoAttack's: standard, plus or rand.
        surrogate: the net whose gradients `transfer` follows.
        progress: show it on stderr.
        options: the attack's own, such as `steps`.

    Raises:
        InputError: images, labels or logits that fit no attack.
        NumericalError: logits are not finite.
        UsageError: no such attack or option.
    """
    images, labels = _pixels(x), _labels(y)
    if len(labels) != len(images):
        raise InputError(f"{len(images)} images but {len(labels)} labels")
    if attack == "none":
        raise UsageError("attack none changes nothing: ask the model itself")
    values, every = _plain(options), registry.shared_options("attacks")
    parts = _taken(values, every)
    for name in values:
        raise unknown("option", name, [option.name for option in every])
    values = {"norm": norm, "eps": str(eps), "seed": seed, "batch_size": batch_size}
    if attack == AUTOATTACK or version != "standard":
        values["version"] = version
    if surrogate is not None:
        values["surrogate"] = arrays.HERE
    given = _built(AttackOptions, {**values, **named(attack)}, parts=parts)
    wanted = AttackSettings(
        attack=given.name,
        norm=norm,
        eps=str(eps),
        data="arrays",
        seed=given.seed,
        batch_size=given.batch_size,
        version=version,
        save_images=True,
        options=given.own(),
        surrogate=given.surrogate,
    )
    wanted.threat  # noqa: B018  (refuses an impossible ε before any work)
    reporter = _reporter("attack", progress)
    with _guest():
        logits = arrays.attack(
            model, images, labels, wanted, surrogate=surrogate, reporter=reporter
        )
    return _attacked(logits, type(x))


def _attacked(logits: Logits, kind: type[Values]) -> Attacked[Values]:
    rows = (logits.images, logits.adversarial, logits.clean, logits.broken_by)
    tensors = [torch.as_tensor(array) for array in rows]
    as_numpy = issubclass(kind, np.ndarray)
    arrays = [tensor.numpy() for tensor in tensors] if as_numpy else tensors
    images, attacked, clean, broken_by = cast(list[Values], arrays)
    accuracies = figures(logits)
    low, high = accuracies["ci95"]
    return Attacked(
        images=images,
        logits=attacked,
        clean_logits=clean,
        broken_by=broken_by,
        attacks=tuple(logits.attacks),
        clean_accuracy=accuracies["clean_accuracy"],
        robust_accuracy=accuracies["robust_accuracy"],
        ci95=(low, high),
        accuracy_after=accuracies["accuracy_after"],
    )


def evaluate(
    checkpoint: Place | Run,
    *,
    attack: str = "autoattack",
    out: str | Path | None = None,
    progress: bool = False,
    **options: object,
) -> Logits:
    """Attack a checkpoint on its test data and write the logits, or find them written.

    Args:
        checkpoint: which one.
        attack: `autoattack`, `fast`, or an attack's name; `none` for clean logits alone.
        out: where the logits go; beside the checkpoint if None.
        progress: show it on stderr.
        options: those of `advkit attack`: `steps=20`, `eps="8/255"`, `limit=100`, ...

    Raises:
        AdvkitError: see `errors`.
    """
    _require_one_process("evaluate")
    values = _plain({**options, "out": out})
    every = registry.shared_options("attacks")
    parts = _taken(values, every)
    names = {option.name for option in every}
    wanted = _built(AttackOptions, {**values, **named(attack)}, names, parts=parts)
    with _guest():
        done = evaluation.evaluate(_path(checkpoint), wanted, _reporter("attack", progress))
    assert done is not None
    return done.logits


def softlabels(
    checkpoint: Place | Run,
    *,
    out: str | Path | None = None,
    progress: bool = False,
    **options: object,
) -> SoftLabels:
    """Write a teacher's logits for its training data, or find them written.

    Args:
        checkpoint: of the teacher.
        out: where the labels go; beside the checkpoint if None.
        progress: show it on stderr.
        options: those of `advkit softlabels`: `views="all"`, `dtype="float16"`, ...

    Raises:
        AdvkitError: see `errors`.
    """
    _require_one_process("softlabels")
    wanted = _built(SoftlabelsOptions, _plain({**options, "out": out}))
    with _guest():
        done = labelling.label(_path(checkpoint), wanted, _reporter("softlabels", progress))
    assert done is not None
    return soft_labels.read(done.path, stay=True)


def analyze(
    name: str,
    *inputs: Place | Run,
    out: str | Path | None = None,
    plot: str | Path | None = None,
    progress: bool = False,
    **options: object,
) -> Result:
    """Analyse logits, labels or checkpoints.

    Args:
        name: of the analysis.
        inputs: one, or several for an analysis that compares.
        out: where the table goes, if anywhere.
        plot: where the picture goes, if anywhere.
        progress: show it on stderr.
        options: the analysis' own, and for one that asks a model `eps`, `limit`, ...

    Raises:
        UsageError: no such analysis or option, or more inputs than it takes at a time.
        AdvkitError: see `errors`.
    """
    part = registry.part("analyses", name)
    values = _plain({**options, "out": out, "plot": plot})
    parts = _taken(values, part.options)
    probing = options_of(ProbeOptions, inherited=True) if part.constants.get("PROBES") else ()
    probe = ProbeOptions(**_taken(values, probing))
    names = {option.name for option in (*part.options, *probing)}
    wanted = _built(AnalyzeOptions, values, names, parts=parts, probe=probe)
    work = Analysis(part, wanted, _reporter(f"analyze {name}", progress))
    alone = part.constants.get("ALONE")
    if not inputs and not (alone and alone in parts):
        raise UsageError(f"analyze {name} needs {' or '.join(work.kinds)}")
    if len(inputs) > 1 and not work.compares:
        raise UsageError(f"analyze {name} looks at one input: call it once for each")
    with _guest(), work.held():
        analyzed = work.analyze(work.read_all([(str(_path(place)), None) for place in inputs]))
        work.draw()
    return Result(analyzed)


Stage = TypeVar("Stage", bound=StageOptions)


def _built(
    stage: type[Stage],
    values: Mapping[str, object],
    more: AbstractSet[str] = frozenset(),
    **parts: object,
) -> Stage:
    """Return a stage's options.

    Args:
        stage: the class that declares them.
        values: of its options, by name.
        more: names that are options too, and were taken out before.
        parts: fields that are no options.

    Raises:
        UsageError: one that the stage does not have, or of another type.
    """
    known = {option.name: option for option in options_of(stage, inherited=True)}
    for name in values:
        if name not in known:
            raise unknown("option", name, known.keys() | more)
    fitted = {name: coercion.fit(known[name], value) for name, value in values.items()}
    return stage.build({**fitted, **parts})


def _taken(values: dict[str, object], options: Iterable[Option]) -> dict[str, Any]:
    """Take the values of some options out, each brought to its option's type."""
    return {
        option.name: coercion.fit(option, values.pop(option.name))
        for option in options
        if option.name in values
    }


def _plain(options: Mapping[str, object]) -> dict[str, object]:
    """Return options as the command line has them: files as text, `lambda_` as lambda."""
    named = {
        name: ",".join(str(_path(place)) for place in value)
        if name == "extra_data" and isinstance(value, list | tuple)
        else value
        for name, value in options.items()
    }
    return {
        name.rstrip("_"): str(_path(value)) if isinstance(value, Path | Run | InFile) else value
        for name, value in named.items()
        if value is not None
    }


def _path(place: Place | Run) -> Path:
    if isinstance(place, Run):
        return place.best
    if not isinstance(place, str | Path | InFile):
        raise UsageError(f"a {type(place).__name__} is no file: give a path, or a stage's result")
    return Path(place.path if isinstance(place, InFile) else place)


def _pixels(x: Tensor | NDArray[np.generic]) -> Tensor:
    """Return images on the CPU as float32; uint8 are pixels in 0..255."""
    images = torch.as_tensor(x).detach().cpu()
    return images.float().div(255) if images.dtype == torch.uint8 else images.float()


def _labels(y: Tensor | NDArray[np.generic]) -> Tensor:
    """Return labels on the CPU.

    Raises:
        InputError: they are not one whole number an example.
    """
    labels = torch.as_tensor(y).detach().cpu()
    if labels.dim() != 1 or labels.is_floating_point() or labels.dtype == torch.bool:
        raise InputError(f"labels are {labels.dtype} {tuple(labels.shape)}, not whole numbers (N,)")
    return labels.long()


def _reporter(stage: str, progress: bool) -> Reporter:
    return showing.reporter(stage, quiet=False) if progress else Reporter()


@contextmanager
def _guest() -> Iterator[None]:
    """Work in somebody's process: Ctrl-C is theirs, and their `no_grad` does not reach in."""
    # Some packages draw from Python's stream when they are first imported, as rich does.
    before = random.getstate()
    try:
        # Inside `inference_mode` no gradient can be had, and `enable_grad` alone does not end it.
        with signals.interruptible(), torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        random.setstate(before)


def _require_one_process(stage: str) -> None:
    if ranks.world() > 1:
        raise UsageError(f"under torchrun use the command line: advkit.{stage} is for one process")
