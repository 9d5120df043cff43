"""What data sets, label sources, objectives, attacks and analyses promise."""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import rich.style  # noqa: F401  it draws from `random` when first imported, scikit-learn imports it
import torch
from torch import Tensor, nn

from advkit import data, registry
from advkit.artifacts.hdf5 import Logits
from advkit.artifacts.result import Result
from advkit.attacks import pgd
from advkit.contracts import logits as logits_files
from advkit.contracts.scene import (
    CLASSES,
    COUNT,
    QUICK,
    Breach,
    batch_of,
    classes,
    demand,
    draws,
    generators,
    given_of,
    having,
    images,
    inner_loss,
    memory_of,
    settings,
    small,
    untouched,
)
from advkit.errors import InputError
from advkit.formulas.threat import NORMS, SLACK, Threat
from advkit.images.batches import Batch
from advkit.labels import Context
from advkit.registry import Part


def data_repeat_or_say_what_is_missing(part: Part) -> None:
    """Without files: the same every time. With files that are not there: a line says so."""
    if part.constants.get("FILES", True):
        with tempfile.TemporaryDirectory() as empty:
            try:
                data.load(part.name, "train", root=Path(empty))
            except InputError as error:
                demand(
                    empty in str(error), f"its error does not say which folder is empty: {error}"
                )
                return
        raise Breach("it loads from an empty folder")
    train, again, test = (data.load(part.name, split) for split in ("train", "train", "test"))
    demand(train.fingerprint == again.fingerprint, "loaded twice it is not the same")
    demand(train.fingerprint != test.fingerprint, "its splits are the same")
    demand(
        (train.classes, train.shape) == (test.classes, test.shape),
        "its splits differ in classes or shape",
    )
    demand((train.name, train.split) == (part.name, "train"), "its images are called otherwise")


def label_rows_are_probabilities(part: Part) -> None:
    """Rows (B, C) of probabilities without gradient, at the start, midway and at the end."""
    for progress in (0.0, 0.5, 0.99):
        net, batch = small(), batch_of(images())
        context = Context(progress, CLASSES, _teacher(net), _soft(net), memory=memory_of(part))
        names = {option.name for option in part.options}
        chosen = {"temperature": 2.0} if "temperature" in names else {}
        with untouched(net, batch.x, batch.y):
            rows = registry.load("labels", part.name).targets(batch, context, **chosen)
        demand(isinstance(rows, Tensor), f"targets gives {type(rows).__name__}, no tensor")
        shape, wanted = tuple(rows.shape), (COUNT, CLASSES)
        demand(shape == wanted, f"rows have shape {shape}, not {wanted}")
        demand(rows.is_floating_point(), f"rows are {rows.dtype}, no floating point")
        demand(not rows.requires_grad, "rows have a gradient")
        demand((rows >= 0).all(), "a row has a negative entry, or one that is no number")
        sums = rows.sum(1)
        demand(torch.allclose(sums, torch.ones(COUNT)), f"a row sums to {float(sums[0]):g}, not 1")
        if "soft" not in part.constants.get("NEEDS", ()):  # a teacher may prefer another class
            demand(
                torch.equal(rows.argmax(1), batch.y), "a row prefers another than the true class"
            )


def _teacher(net: nn.Module) -> nn.Module:
    """Return the net without gradient, as the weight average is."""
    return copy.deepcopy(net).requires_grad_(False)


def _soft(net: nn.Module) -> Callable[[Batch], Tensor]:
    def logits(batch: Batch) -> Tensor:
        answer: Tensor = net(batch.x).detach()
        return answer

    return logits


def inner_is_a_number_an_example(part: Part) -> None:
    """Losses (B,), finite, each with a gradient to its own logits alone."""
    inner = registry.load("objectives", part.name).inner
    net, x = small(), images()
    x_adv = (x + 0.05 * draws(*x.shape)).clamp(0, 1)
    given = given_of(part, net, x)
    for chosen in settings(inner):
        logits = draws(COUNT, CLASSES, seed=2).requires_grad_()
        with untouched(given.y, given.targets, given.clean(), logits):
            losses = inner_loss(part, given, x, chosen)(x_adv, logits)
        shape = tuple(losses.shape)
        demand(shape == (COUNT,), f"inner losses have shape {shape}, not {(COUNT,)}")
        demand(losses.isfinite().all(), "an inner loss is not finite")
        (gradient,) = torch.autograd.grad(losses[0], logits)
        demand(gradient[0].abs().sum() > 0, "an inner loss has no gradient")
        demand((gradient[1:] == 0).all(), "an example's inner loss depends on another example")


def outer_is_a_scalar_without_side_effects(part: Part) -> None:
    """A finite loss with a gradient to every parameter, and logits without one."""
    outer = registry.load("objectives", part.name).outer
    net, x = small(), images()
    x_adv = (x + 0.05 * draws(*x.shape)).clamp(0, 1)
    given = given_of(part, net, x)
    for chosen in settings(outer):
        with untouched(net, x, x_adv, given.y, given.targets, given.clean()):
            loss, stats = outer(net, x, x_adv, given, **chosen)
        demand(loss.shape == (), f"the loss has shape {tuple(loss.shape)}, it is no scalar")
        demand(loss.isfinite(), "the loss is not finite")
        demand(stats, "it gives no logits")
        demand(not any(z.requires_grad for z in stats.values()), "its logits have a gradient")
        gradients = torch.autograd.grad(loss, list(net.parameters()))
        demand(
            all(bool(one.abs().sum() > 0) for one in gradients),
            "the loss has no gradient to a parameter",
        )


def ascending_raises_the_inner_loss(part: Part) -> None:
    """The attack and the loss agree on the sign, and the start that it names exists."""
    net, x = small(), images()
    given = given_of(part, net, x)
    loss = inner_loss(part, given, x)
    threat, draw = Threat("linf", 0.1), torch.Generator().manual_seed(0)
    threat.start(x, part.constants.get("START", "uniform"), draw)
    start = threat.start(x, "normal", draw)
    x_adv = pgd.pgd(
        net,
        start,
        classes(),
        threat,
        steps=5,
        random_start=False,
        seeing=loss,
    )
    raised = loss(x_adv, net(x_adv)).sum() > loss(start, net(start)).sum()
    demand(raised, "following its gradient lowers the inner loss")


def attacked(part: Part, net: nn.Module, threat: Threat, seed: int = 0) -> Tensor:
    """Return images attacked with quick options, the net being its own surrogate."""
    draw = torch.Generator().manual_seed(seed)
    attack = registry.load("attacks", part.name).attack
    x_adv: Tensor = attack(net, images(), classes(), threat, generator=draw, **supplied(part, net))
    return x_adv


def supplied(part: Part, net: nn.Module) -> dict[str, object]:
    """Return quick options of an attack and what else it needs."""
    attack = registry.load("attacks", part.name).attack
    needed = {"surrogate": net}
    needs = part.constants.get("NEEDS", ())
    return having(attack, QUICK) | {name: needed[name] for name in needs}


def attack_stays_in_ball_and_box(part: Part) -> None:
    """For every norm and radius, none too: within ε and [0, 1], finite, without gradient."""
    for norm, eps in [*((norm, eps) for norm in NORMS for eps in (0.1, 1.0)), ("linf", 0.0)]:
        threat = Threat(norm, eps)
        x_adv, x = attacked(part, small(), threat), images()
        where = f"{norm}, eps {eps:g}"
        demand(x_adv.shape == x.shape, f"{where}: images of another shape")
        demand(not x_adv.requires_grad, f"{where}: its images have a gradient")
        demand(x_adv.isfinite().all(), f"{where}: a pixel is not finite")
        demand(threat.distance(x_adv, x).max() <= eps + SLACK, f"{where}: it leaves the ball")
        demand(x_adv.min() >= 0 and x_adv.max() <= 1, f"{where}: it leaves [0, 1]")


def attack_leaves_everything_alone(part: Part) -> None:
    """Net, images, labels and generators are as they were, whatever modes the net is in."""
    net = small()
    first, *_, last = net.parameters()
    first.requires_grad_(False)
    last.grad = torch.ones_like(last)
    x, y, draw = images(), classes(), torch.Generator().manual_seed(0)
    attack = registry.load("attacks", part.name).attack
    with untouched(net, x, y):
        x_adv = attack(net, x, y, Threat("linf", 0.1), generator=draw, **supplied(part, net))
    demand(x_adv.data_ptr() != x.data_ptr(), "it gives the memory of the images themselves")


def attack_repeats_with_its_generator(part: Part) -> None:
    """The same generator gives the same images, under `no_grad` and another global seed too."""
    first = attacked(part, small(), Threat("linf", 0.1))
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(99)
        second = attacked(part, small(), Threat("linf", 0.1))
    demand(torch.equal(first, second), "called twice with equal generators it gives other images")


def analysis_gives_a_plain_table(part: Part, inputs: Sequence[Logits] | None = None) -> None:
    """Finite plain numbers and rows as long as the columns, twice the same; inputs are left alone.

    Args:
        part: an analysis; only one of logits is tried.
        inputs: what it is tried on; logits files of random numbers where not given.
    """
    if "logits" not in part.constants["KINDS"]:
        return
    inputs = logits_files.inputs(part) if inputs is None else inputs
    before = generators()
    arrays = [array for one in inputs for array in logits_files.arrays(one)]
    copies = [array.clone() for array in arrays]
    first, second = (registry.load("analyses", part.name).analyze(inputs) for _ in "ab")
    demand(generators() == before, "it draws from a global random generator")
    demand(
        all(torch.equal(old, new) for old, new in zip(copies, arrays, strict=True)),
        "it changes its inputs",
    )
    demand(isinstance(first, Result), f"it gives {type(first).__name__}, not Result")
    demand((first.numbers, first.rows) == (second.numbers, second.rows), "twice it differs")
    demand(first.numbers, "it gives no numbers")
    for name, value in first.numbers.items():
        if name.endswith("_ci95"):
            continue
        demand(type(value) in _PLAIN, f"{name} is {type(value).__name__}, no plain number")
        demand(not isinstance(value, float) or math.isfinite(value), f"{name} is not finite")
    demand(first.columns and first.rows, "it gives no table")
    demand(len(set(first.columns)) == len(first.columns), "two columns have one name")
    demand({len(row) for row in first.rows} == {len(first.columns)}, "a row lacks cells")
    cells = {type(cell) for row in first.rows for cell in row}
    demand(cells <= _PLAIN, f"a cell is {', '.join(sorted(t.__name__ for t in cells - _PLAIN))}")


_PLAIN = {int, float, str, bool, type(None)}
