"""What the description of each kind of artifact holds: one definition writes and checks it.

A reader that has a description has every key that is required here, of its type and in its
range. Other keys may be there: parts and later versions add some. `NotRequired` keys are those
that no stage needs, and those that earlier versions did not write.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NotRequired, TypedDict, get_args

from advkit.artifacts.schema import Kind, Sized, Within, amount

MANY, SHORT, LONG = 1 << 8, 1 << 12, 1 << 20
"""Entries of a list of a few; characters of a text; entries of a list such as all classes."""
DEEPEST = 16
"""Generations from an artifact back to its data; LTD's longest chain has five."""
LARGEST_EPS = 1e6

Description = Mapping[str, object]
"""A description of any kind; once it is checked, its kind's definition says what it holds."""

Word = Annotated[str, Sized(1, SHORT)]
# Up to 2**53 a float holds every whole number, and so does any other reader of the JSON.
Count = Annotated[int, Within(0, 2**53)]
"""How many there are, none included."""
Some = Annotated[int, Within(1, 2**53)]
Integer = Annotated[int, Within(-(2**63), 2**63)]
Real = Annotated[float, Within(-1e300, 1e300)]
# From the smallest float above 0 on.
Positive = Annotated[float, Within(5e-324, 1e300)]
Share = Annotated[float, Within(0, 1)]
Side = Annotated[int, Within(1, 1 << 14)]
"""Pixels of an image's edge, or channels."""


# Radii, steps and spans stay text in a description, as they were typed: 8/255 is no float.
def _radius(text: str) -> str:
    try:
        return "" if amount(text) <= LARGEST_EPS else f"is above {LARGEST_EPS:g}"
    except ValueError:
        return "is no number"


def _ball(config: Settings | Recipe | Attack) -> str:
    """Check ε, which a norm bounds: linf's is in pixel space."""
    eps = config.get("eps")
    if config.get("norm") == "linf" and eps is not None and amount(eps) > 1:
        return ".eps is not in 0..1"
    return ""


def _step(text: str) -> str:
    """Check a step size: a number, or a share of ε."""
    before, shared, after = text.partition("eps")
    factors = [before.rstrip(" *"), after.lstrip(" /")] if shared else [text]
    try:
        right = all(amount(factor) > 0 for factor in factors if factor or not shared)
    except ValueError:
        right = False
    return "" if right else "is no step size"


def _span(text: str) -> str:
    try:
        ends = [amount(end) for end in text.split(":")]
    except ValueError:
        ends = []
    return "" if len(ends) in (1, 2) else "is no range START:END"


def _shard(pair: list[int]) -> str:
    return "" if 1 <= pair[0] <= pair[1] else "is no shard I of N"


Eps = Annotated[str, Sized(1, SHORT), _radius]
Step = Annotated[str, Sized(1, SHORT), _step]
Span = Annotated[str, Sized(1, SHORT), _span]
Norm = Literal["linf", "l2", "l1"]
Digests = Annotated[dict[str, Word], Sized(0, MANY)]
ShardPair = Annotated[list[Count], Sized(2, 2), _shard]


class Versions(TypedDict):
    """What wrote it."""

    advkit: Word
    torch: Word


class Environment(TypedDict):
    """What rounding depends on; lists where merged shards differ. An analysis may need none."""

    device: NotRequired[Word | Annotated[list[Word], Sized(1, MANY)]]
    threads: NotRequired[Some | Annotated[list[Some], Sized(1, MANY)]]
    world: NotRequired[Some]


class Broken(TypedDict):
    """Images of a data set that were left out because they could not be read."""

    n: Some
    digest: Word


class Parent(TypedDict):
    """What an artifact was made from, with its own parents: the chain to the data.

    `kind` says which of the other keys there are, see `PARENTS`; `use` is `init` where a run
    began with the weights of a checkpoint, and the role of a teacher that an objective asks;
    `test_fraction` and `broken` how a folder was read.
    """

    kind: Word
    digest: Word
    name: NotRequired[Word]
    split: NotRequired[Word]
    method: NotRequired[Word]
    arch: NotRequired[Word]
    role: NotRequired[Word]
    seed: NotRequired[Integer | None]
    temperature: NotRequired[Positive]
    use: NotRequired[Word]
    test_fraction: NotRequired[Share]
    broken: NotRequired[Broken]
    parents: NotRequired[Annotated[list[Any], Sized(0, MANY)]]


PARENTS: Mapping[str, tuple[str, ...]] = {
    "data": ("name", "split"),
    "checkpoint": ("method", "arch", "role", "seed", "parents"),
    "labels": ("method", "arch", "seed", "parents"),
    "logits": ("method", "arch", "role", "seed", "parents"),
}
"""Kind of a parent → what it always says."""


class Data(TypedDict):
    """The data set and its classes, in the order of the logits."""

    name: Word
    classes: Annotated[list[Annotated[str, Sized(0, SHORT)]], Sized(1, LONG)]


class Build(TypedDict):
    """Options of an architecture; those of other parts have other names."""

    width: NotRequired[Some]
    activation: NotRequired[Word]
    form: NotRequired[Word]
    depth: NotRequired[Some]
    widen: NotRequired[Some]


class Model(TypedDict):
    """What builds the net."""

    arch: Word
    options: Annotated[Build, Sized(0, MANY)]
    input_shape: Annotated[list[Side], Sized(3, 3)]
    mean: Annotated[list[Real], Sized(1, SHORT)]
    std: Annotated[list[Real], Sized(1, SHORT)]


class Metrics(TypedDict):
    """A checkpoint's figures on its validation split.

    Without `--wa` the last weight average is kept and not measured: it has no accuracies.
    """

    clean_accuracy: NotRequired[Share]
    epoch: Count
    n: Some
    robust_accuracy: NotRequired[Share]
    margin_accuracy: NotRequired[Share]
    apgd_accuracy: NotRequired[Share]
    masking_alarm: NotRequired[bool]
    overfitting_alarm: NotRequired[bool]
    teacher_alarm: NotRequired[bool]
    labels_alarm: NotRequired[bool]
    gradient_alarm: NotRequired[bool]
    margin_alarm: NotRequired[bool]


Alarm = Literal[
    "masking_alarm",
    "overfitting_alarm",
    "teacher_alarm",
    "labels_alarm",
    "gradient_alarm",
    "margin_alarm",
]
ALARMS: tuple[Alarm, ...] = get_args(Alarm)
"""What rows of a log, checkpoints and records of a run are marked with."""


class Split(TypedDict):
    """What makes the validation split."""

    split_seed: NotRequired[Integer | None]
    val_size: NotRequired[Some | None]
    limit: NotRequired[Some | None]


# `lambda` is a keyword, which the class form cannot have for a name.
Reserved = TypedDict("Reserved", {"lambda": NotRequired[Span]})


class Options(Split, Build, Reserved):
    """Options of a run; one that a version or part lacks is not there."""

    data: NotRequired[Word]
    arch: NotRequired[Word]
    method: NotRequired[Word]
    objective: NotRequired[Word]
    labels: NotRequired[Word]
    wa: NotRequired[bool]
    awp: NotRequired[Annotated[float, Within(0, 1e300)]]
    awp_form: NotRequired[Word]
    awp_warmup: NotRequired[Count]
    ema_decay: NotRequired[Share]
    swa_start: NotRequired[Some | None]
    ema_warmup: NotRequired[Annotated[float, Within(0, 1e300)] | None]
    ema_norms: NotRequired[Word]
    labels_digest: NotRequired[Word | None]
    init_digest: NotRequired[Word | None]
    teacher_digest: NotRequired[Word | None]
    natural_teacher_digest: NotRequired[Word | None]
    student_temperature: NotRequired[Positive]
    extra_fraction: NotRequired[Share]
    extra_digest: NotRequired[Word | None]
    normalise: NotRequired[bool]
    bn_momentum: NotRequired[Share | None]
    sync_bn: NotRequired[bool]
    batch_size: NotRequired[Some]
    lr: NotRequired[Positive]
    lr_schedule: NotRequired[Word]
    lr_drops: NotRequired[Annotated[list[Count], Sized(0, LONG)] | None]
    warmup_epochs: NotRequired[Annotated[float, Within(0, 1e300)] | None]
    momentum: NotRequired[Share]
    nesterov: NotRequired[bool]
    weight_decay: NotRequired[Annotated[float, Within(0, 1e300)]]
    norm_decay: NotRequired[bool]
    attack_steps: NotRequired[Count]
    step_size: NotRequired[Step]
    attack_start: NotRequired[Word | None]
    attack_bn: NotRequired[Word]
    amp: NotRequired[bool]
    compile: NotRequired[bool]
    noise: NotRequired[Word]
    tf32: NotRequired[bool]
    compile_mode: NotRequired[Word]
    seed: NotRequired[Integer]
    beta: NotRequired[Annotated[float, Within(0, 1e300)]]
    inner: NotRequired[Word]
    joint_batch: NotRequired[bool]
    bn_passes: NotRequired[Word]
    clip_start: NotRequired[bool]
    last_batch: NotRequired[Word]
    logging_pass: NotRequired[bool]
    tau: NotRequired[Span]
    anneal: NotRequired[Word]
    teacher_noise: NotRequired[Word | None]
    smoothing: NotRequired[Share]
    temperature: NotRequired[Positive]
    min_loss: NotRequired[Annotated[float, Within(0, 1e300)]]
    train_attack: NotRequired[Word]
    start_radius: NotRequired[Annotated[float, Within(0, 1e300)]]
    grad_align: NotRequired[Annotated[float, Within(0, 1e300)]]
    select: NotRequired[Word]
    optimizer: NotRequired[Word]
    clip_grad_norm: NotRequired[Annotated[float, Within(0, 1e300)]]
    warmup_steps: NotRequired[Count | None]
    lr_peak: NotRequired[Share | None]
    lr_hold: NotRequired[Some]
    adversarial_weight: NotRequired[Share]
    kl_weight: NotRequired[Annotated[float, Within(0, 1e300)]]
    image_size: NotRequired[Side | None]
    test_fraction: NotRequired[Share | None]
    skip_broken: NotRequired[bool]


class Settings(Options):
    """The configuration of a run; of an imported net nobody knows it, see `TRAINED`."""

    epochs: Some | None
    norm: Norm | None
    eps: Eps | None


class Recipe(Options):
    """The configuration that a logits file's checkpoint was trained with, as far as it is known."""

    epochs: NotRequired[Some]
    norm: NotRequired[Norm]
    eps: NotRequired[Eps]


class Labelling(TypedDict):
    """The configuration of a labels file; of a shard also what all shards share."""

    data: Word
    views: Word
    dtype: Literal["float32", "float16"]
    top_k: Some | None
    seed: Integer
    image_size: NotRequired[Side]
    shard: NotRequired[ShardPair]
    batch_size: NotRequired[Some]
    examples: NotRequired[Some]


class Attack(TypedDict):
    """The configuration of a logits file; `--attack none` has no threat. Parts add options."""

    attack: Word
    data: Word
    seed: Integer
    batch_size: Some
    limit: Some | None
    shard: NotRequired[ShardPair]
    norm: NotRequired[Norm]
    eps: NotRequired[Eps]
    save_images: NotRequired[bool]
    version: NotRequired[Word]
    surrogate: NotRequired[Word]
    steps: NotRequired[Count]
    restarts: NotRequired[Some]
    step_size: NotRequired[Step]
    loss: NotRequired[Word]


class Described(TypedDict):
    """What every description says; nobody knows the seed of an imported net."""

    schema: int
    kind: Word
    seed: Integer | None
    versions: NotRequired[Versions]
    environment: Environment
    parents: Annotated[list[Parent], Sized(0, MANY)]
    digest: Word


class Trained(Described):
    """What all artifacts of a run say."""

    config: Annotated[Settings, _ball]
    method: Word
    arch: Word
    data: Data
    model: Model
    elastic: NotRequired[Annotated[list[Annotated[list[Count], Sized(4, 4)]], Sized(0, SHORT)]]
    parts: NotRequired[Digests]


class Beside(TypedDict):
    """What lies beside the last checkpoint of a finished run, by role, and the log's digest."""

    checkpoints: Digests
    log: Word


class Source(TypedDict):
    """The file that an imported net comes from."""

    digest: Word
    format: Word


class Checkpoint(Trained):
    """A net: what it is, and how good it was on its validation split, unless it is imported."""

    role: Word
    metrics: NotRequired[Metrics]
    run: NotRequired[Beside]
    imported: NotRequired[Literal[True]]
    source: NotRequired[Source]


TRAINED = ("epochs", "norm", "eps")
"""Settings that every run has; null for an imported net."""


class State(Trained):
    """What an unfinished run goes on from."""

    epoch: Count
    step: Count
    best: Annotated[dict[str, Metrics], Sized(0, MANY)]
    alarmed: bool
    written: NotRequired[Digests]


class Labels(Described):
    """A teacher's logits of a training split."""

    config: Labelling
    method: Word
    arch: Word
    data: Data
    pad: Annotated[int, Within(0, 127)]
    flip: bool
    split: NotRequired[Split]
    teacher_accuracy: Share
    parts: NotRequired[Digests]


class Logits(Described):
    """What a model says of each example, clean and attacked."""

    config: Annotated[Attack, _ball]
    attacks: Annotated[list[Word], Sized(0, MANY)]
    method: Word
    arch: Word
    role: Word
    data: Data
    zero_gradient: Share | None
    alarms: NotRequired[Annotated[list[Word], Sized(1, MANY)]]
    trained: NotRequired[Annotated[Recipe, _ball]]
    implementation: NotRequired[Word]
    target_classes: NotRequired[Count]
    fab_target_classes: NotRequired[Count]
    parts: NotRequired[Digests]


class Named(TypedDict):
    """The configuration of an analysis: its name, and the options it was called with."""

    analysis: Word


class Analysis(Described):
    """A table of numbers; `parts` where the analysis is not advkit's own."""

    config: Named
    parts: NotRequired[Digests]


class Part(TypedDict):
    """A finished piece of a labels file; `work` is what all its pieces agree on."""

    schema: int
    kind: Word
    work: dict[str, object]
    rows: Some
    number: Count
    hits: NotRequired[Count]
    digest: Word


class Partial(TypedDict):
    """The books of an unfinished evaluation, or the images of one of its batches."""

    schema: int
    kind: Word
    layout: Count
    config: dict[str, object]
    checkpoint: Word
    data: Word
    environment: Environment
    done: NotRequired[Annotated[list[Count], Sized(2, 2)]]
    patches: NotRequired[Count]
    number: NotRequired[Count]
    digest: Word


TrialKind = Literal["substitute", "ltd"]


class Trial(TypedDict):
    """A line of a search's ledger; a substitute is not attacked, see `JUDGED`."""

    kind: TrialKind
    temperature: Positive
    clean_accuracy: Share
    digest: NotRequired[Word]
    masking_alarm: NotRequired[bool]
    robust_accuracy: NotRequired[Share]
    pgd_accuracy: NotRequired[Share]
    loss_ce: NotRequired[Real]
    loss_kl: NotRequired[Real]


JUDGED = ("masking_alarm", "robust_accuracy", "loss_ce", "loss_kl")
"""What a student's trial always says: the search chooses by it."""
DEFINITIONS: Mapping[str, Kind] = {
    "checkpoint": Checkpoint,
    "state": State,
    "labels": Labels,
    "logits": Logits,
    "analysis": Analysis,
    "part": Part,
    "partial": Partial,
}
"""Kind → what its description holds."""
