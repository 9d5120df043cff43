"""Every part keeps its folder's contract from its first day: a new file is tested by itself."""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
import itertools
import random
import typing
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import rich.style  # noqa: F401  it draws from `random` when first imported, scikit-learn imports it
import torch
from torch import nn

from advkit import data, models, registry
from advkit.artifacts.hdf5 import Logits
from advkit.attacks import pgd
from advkit.errors import InputError, UsageError
from advkit.evaluation import folded
from advkit.formulas.losses import cross_entropy
from advkit.formulas.threat import NORMS, SLACK, Threat
from advkit.images.batches import Batch, Batches
from advkit.images.image_set import Images
from advkit.labels import Context
from advkit.objectives import Given
from advkit.registry.declarations import DECLARATIONS, TEACHERS
from advkit.runtime import modes
from tests.attacks.planted import NEAREST, known
from tests.conftest import SEED

CLASSES, COUNT, EPOCHS = 5, 12, 200
SMALL = {"width": 4, "depth": 10, "widen": 1}
"""Options that make an architecture small, where it has them."""
QUICK = {"steps": 3, "restarts": 1, "queries": 20}
"""Options that make an attack quick, where it has them; `supplied` adds what it `NEEDS`."""
EVERY = [part for folder in registry.CONTRACTS for part in registry.parts(folder).values()]


def named(part: registry.Part) -> str:
    return f"{part.folder}/{part.name}"


def parts(folder: str, **wanted: typing.Any) -> pytest.MarkDecorator:
    """Run a test for every part of a folder, or those whose constants are as wanted."""
    chosen = [
        part
        for part in registry.parts(folder).values()
        if all(part.constants.get(name) == value for name, value in wanted.items())
    ]
    return pytest.mark.parametrize("part", chosen, ids=named)


def options(function: typing.Callable, chosen: dict) -> dict:
    """Return the chosen options that a function has."""
    return {name: value for name, value in chosen.items()
            if name in inspect.signature(function).parameters}  # fmt: skip


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def images(channels: int = 3, size: int = 8) -> torch.Tensor:
    draw = torch.Generator().manual_seed(0)
    return torch.rand(COUNT, channels, size, size, generator=draw)


def classes() -> torch.Tensor:
    return torch.arange(COUNT) % CLASSES


def small(name: str = "small-cnn", channels: int = 3, *, statistics: bool = True) -> nn.Module:
    """A small net whose BN statistics, unless told otherwise, are those of some images."""
    normalisation = ([0.4] * channels, [0.3] * channels)
    chosen = {each.name: SMALL[each.name] for each in registry.part("models", name).options
              if each.name in SMALL}  # fmt: skip
    net = models.build(
        name, CLASSES, channels=channels, statistics=normalisation, seed=SEED, **chosen
    )
    if statistics:
        with torch.no_grad():
            net.train()(images(channels, 16))
    return net.eval()


def generators() -> list:
    """The state of every global random generator."""
    kind, keys, *rest = np.random.get_state()
    return [torch.get_rng_state().tolist(), random.getstate(), (kind, keys.tolist(), *rest)]


def state(net: nn.Module) -> list:
    """Everything about a net that a part must leave as it was."""
    tensors = {name: value.tolist() for name, value in net.state_dict().items()}
    return [
        tensors,
        [module.training for module in net.modules()],
        [getattr(module, "track_running_stats", None) for module in net.modules()],
        [(p.requires_grad, None if p.grad is None else p.grad.tolist()) for p in net.parameters()],
    ]


@contextmanager
def untouched(*things: torch.Tensor | nn.Module) -> Iterator[None]:
    """Prove that nets, tensors and the global generators are left as they were."""

    def look() -> list:
        return [state(each) if isinstance(each, nn.Module) else (each.tolist(), each.grad)
                for each in things] + generators()  # fmt: skip

    before = copy.deepcopy(look())
    yield
    assert look() == before


# --- every part ---


def test_every_part_is_proper():
    assert [(named(part), part.problems) for part in EVERY if part.problems] == []


def test_every_part_has_one_line_of_help():
    wrong = [(named(part), part.help) for part in EVERY
             if not 10 < len(part.help) <= 100 or not part.help.endswith((".", ")"))]  # fmt: skip
    assert wrong == []


def test_every_option_has_help_and_a_default_of_its_kind():
    kinds = {"str": str, "int": int, "float": (int, float), "bool": bool}
    wrong = []
    for part, option in [(each, option) for each in EVERY for option in each.options]:
        where, default = f"{named(part)} --{option.name}", option.default
        if not option.help:
            wrong.append(f"{where}: no help text")
        if default is not None and not isinstance(default, kinds.get(option.kind, object)):
            wrong.append(f"{where}: {default!r} is no {option.kind}")
        if option.choices and option.default not in (None, *option.choices):
            wrong.append(f"{where}: {default!r} is not among {option.choices}")
    assert wrong == []


def test_every_part_imports_and_its_signature_is_as_read():
    wrong = []
    for part in EVERY:
        module = registry.load(part.folder, part.name)
        for entry, expected in registry.CONTRACTS[part.folder].items():
            given = inspect.signature(getattr(module, entry)).parameters.values()
            positional = [each.name for each in given if each.kind is not each.KEYWORD_ONLY]
            if tuple(positional) != expected:
                wrong.append((named(part), entry, positional))
            wrong += [(named(part), entry, each.name, "no annotation") for each in given
                      if each.annotation is each.empty]  # fmt: skip
    assert wrong == []


def test_declarations_are_read_as_import_gives_them():
    wrong = [
        (named(part), name)
        for part in EVERY
        for module in [registry.load(part.folder, part.name)]
        for name in DECLARATIONS[part.folder]
        if part.constants.get(name) != getattr(module, name, None)
    ]
    assert wrong == []


# --- data ---


@parts("data", FILES=False)
@pytest.mark.parametrize("split", ["train", "test"])
def test_data_without_files_are_the_same_every_time(part, split):
    first, second = (data.load(part.name, split) for _ in "ab")
    assert first.fingerprint == second.fingerprint
    assert len(first.labels) > 0
    assert (first.name, first.split) == (part.name, split)


@parts("data", FILES=False)
def test_splits_of_data_without_files_differ(part):
    train, test = (data.load(part.name, split) for split in ("train", "test"))
    assert train.fingerprint != test.fingerprint
    assert (train.classes, train.shape) == (test.classes, test.shape)


@parts("data", FILES=None)
@pytest.mark.parametrize("split", ["train", "test"])
def test_data_whose_files_are_not_there_say_so_in_a_line(part, split, tmp_path):
    for root in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match=r" there|no such folder") as caught:
            data.load(part.name, split, root=root)
        assert str(root) in str(caught.value)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "nowhere").exists()  # nothing is ever downloaded unasked


# --- models ---


@pytest.fixture(scope="module", params=registry.parts("models").values(), ids=named)
def built(request):
    """A small net of each architecture, built once for the tests that only look at it."""
    net = small(request.param.name)
    net.architecture = request.param.name
    return net


def test_a_model_gives_logits_and_a_gradient_to_its_input(built):
    require_logits_and_gradient(built, 3)


@parts("models")
def test_a_model_takes_grey_images_or_says_that_it_does_not(part):
    if 1 not in part.constants.get("CHANNELS", (1, 3)):
        with pytest.raises(UsageError, match=f"{part.name} takes .* 3 channels, not 1"):
            small(part.name, 1)
        return
    require_logits_and_gradient(small(part.name, 1), 1)


def require_logits_and_gradient(net, channels):
    x = images(channels, 32)[:2].requires_grad_()
    logits = net(x)
    assert logits.shape == (2, CLASSES)
    assert logits.dtype == torch.float32
    (gradient,) = torch.autograd.grad(logits[0].sum(), x)
    assert bool(gradient[0].abs().max() > 0)
    assert bool((gradient[1] == 0).all())  # in eval mode examples do not see each other


def test_a_model_carries_its_normalisation_as_buffers(built):
    net = built
    assert torch.allclose(net.mean.flatten(), torch.full((3,), 0.4))
    assert torch.allclose(net.std.flatten(), torch.full((3,), 0.3))
    assert {"mean", "std"} <= net.state_dict().keys()


def test_building_a_model_repeats_and_spares_the_generators(built):
    before = generators()
    again = small(built.architecture, statistics=False)
    assert generators() == before
    weights = dict(again.named_parameters())
    assert weights
    assert all(torch.equal(weights.pop(name), value) for name, value in built.named_parameters())
    assert not weights


def test_a_model_folds_into_a_copy_that_answers_the_same(built):
    """Logits and input gradients, with fewer normalisations to compute.

    In float64: in float32 an activation within rounding of a ReLU's kink may fall on its other
    side in the copy, and with it a whole path of the gradient.
    """
    net, x = copy.deepcopy(built).double(), images(3, 16)[:3].double()
    same = folded.folded(net)
    assert same is not None, "torch.fx cannot trace it: AutoAttack would be slow"
    found = []
    for each in (net, same):
        given = x.clone().requires_grad_()
        logits = each(given)
        (gradient,) = torch.autograd.grad(cross_entropy(logits, classes()[:3]).sum(), given)
        found.append((logits.detach(), gradient))
    for mine, its in zip(*found, strict=True):
        assert float((mine - its).abs().max()) <= 1e-10 * float(mine.abs().max())
    assert len(modes.batch_norms(same)) < len(modes.batch_norms(net))


# --- labels ---


def batch_of(x: torch.Tensor) -> Batch:
    raw = (x * 255).to(torch.uint8)
    names = tuple(str(label) for label in range(CLASSES))
    split = Images("x", "train", raw, classes(), names, pad=1, flip=True)
    whole = Batches(split, torch.arange(COUNT), COUNT, 0, torch.device("cpu"))
    return whole.at(whole.order(0), 0, 0)


@parts("labels")
@pytest.mark.parametrize("progress", [0.0, 0.5, 0.99])
def test_label_rows_are_probabilities_without_gradient(part, progress):
    net, batch = small(), batch_of(images())
    context = Context(
        progress, CLASSES, lambda x: net(x).detach(), lambda given: net(given.x).detach()
    )
    chosen = {"temperature": 2.0} if "temperature" in {each.name for each in part.options} else {}
    with untouched(net, batch.x, batch.y):
        rows = registry.load("labels", part.name).targets(batch, context, **chosen)
    assert rows.shape == (COUNT, CLASSES)
    assert rows.is_floating_point()
    assert not rows.requires_grad
    assert bool((rows >= 0).all())
    torch.testing.assert_close(rows.sum(1), torch.ones(COUNT))
    if "soft" not in part.constants.get("NEEDS", ()):  # a teacher alone may prefer another class
        assert torch.equal(rows.argmax(1), batch.y)


# --- objectives ---


def given_of(part: registry.Part, net: nn.Module, x: torch.Tensor, epoch: int = EPOCHS) -> Given:
    rows = torch.softmax(draws(COUNT, CLASSES, seed=1), dim=1)
    with torch.no_grad():
        clean = net(x)
    return Given(
        classes(), rows, lambda: clean,
        teachers=dict.fromkeys(TEACHERS, teacher_of(net)),
        memory=memory_of("objectives", part),
        index=torch.arange(COUNT), epoch=epoch, epochs=EPOCHS,
    )  # fmt: skip


def teacher_of(net: nn.Module) -> nn.Module:
    """A fixed net of the same form with other weights."""
    teacher = copy.deepcopy(net).eval().requires_grad_(False)
    for number, parameter in enumerate(teacher.parameters()):
        parameter += 0.5 * draws(*parameter.shape, seed=number)
    return teacher


def memory_of(shelf: str, part: registry.Part) -> dict:
    """The memory of a part at its beginning, an example of it that is extra left out."""
    module = registry.load(shelf, part.name)
    return module.memory(classes(), CLASSES) if hasattr(module, "memory") else {}


def seeing(part: registry.Part, given: Given, x: torch.Tensor, **chosen: typing.Any):
    """The inner loss as a function of the iterate and its logits."""
    inner = registry.load("objectives", part.name).inner
    asked = {*inspect.signature(inner).parameters} & {"x", "x_adv"}

    def loss(x_adv, logits):
        images = {"x": x, "x_adv": x_adv}
        return inner(logits, given, **{name: images[name] for name in asked}, **chosen)

    return loss


def settings(function: typing.Callable) -> list[dict]:
    """Every combination of the choices of a function's options."""
    hints = typing.get_type_hints(function)
    choices = {
        name: typing.get_args(hints[name]) if typing.get_origin(hints[name]) is typing.Literal
        else (False, True)
        for name, each in inspect.signature(function).parameters.items()
        if each.kind is each.KEYWORD_ONLY
        and (hints[name] is bool or typing.get_origin(hints[name]) is typing.Literal)
    }  # fmt: skip
    return [dict(zip(choices, each, strict=True)) for each in itertools.product(*choices.values())]


@parts("objectives")
def test_an_inner_objective_is_one_finite_number_an_example(part):
    inner = registry.load("objectives", part.name).inner
    net, x = small(), images()
    x_adv = (x + 0.05 * draws(*x.shape)).clamp(0, 1)
    given = given_of(part, net, x)
    for chosen in settings(inner):
        logits = draws(COUNT, CLASSES, seed=2).requires_grad_()
        with untouched(given.y, given.targets, given.clean(), logits):
            found = seeing(part, given, x, **chosen)(x_adv, logits)
        assert found.shape == (COUNT,)
        assert bool(found.isfinite().all())
        (gradient,) = torch.autograd.grad(found[0], logits)
        assert bool(gradient[0].abs().sum() > 0)
        assert bool((gradient[1:] == 0).all())


@parts("objectives")
def test_an_outer_objective_is_a_scalar_with_gradients_and_no_side_effects(part):
    outer = registry.load("objectives", part.name).outer
    net, x = small(), images()
    x_adv = (x + 0.05 * draws(*x.shape)).clamp(0, 1)
    given = given_of(part, net, x)
    for chosen in settings(outer):
        with untouched(net, x, x_adv, given.y, given.targets, given.clean()):
            loss, stats = outer(net, x, x_adv, given, **chosen)
        assert loss.shape == ()
        assert bool(loss.isfinite())
        assert stats
        assert not any(value.requires_grad for value in stats.values())
        gradients = torch.autograd.grad(loss, list(net.parameters()))
        assert all(bool(each.abs().sum() > 0) for each in gradients)


@parts("objectives")
def test_an_objective_declares_a_start_that_exists(part):
    start = part.constants.get("START", "uniform")
    Threat("linf", 0.1).start(images(), start, torch.Generator().manual_seed(0))


@parts("objectives")
def test_ascending_the_inner_objective_raises_it(part):
    """The attack and the loss agree on the sign."""
    net, x = small(), images()
    given = given_of(part, net, x)
    loss = seeing(part, given, x)
    draw = torch.Generator().manual_seed(0)
    start = Threat("linf", 0.1).start(x, "normal", draw)
    x_adv = pgd.pgd(net, start, classes(), Threat("linf", 0.1), steps=5, random_start=False,
                    seeing=loss)  # fmt: skip
    assert loss(x_adv, net(x_adv)).sum() > loss(start, net(start)).sum()


# --- attacks ---


def supplied(part: registry.Part, net: nn.Module) -> dict:
    """Return quick options of an attack and what else it needs, the net as its own surrogate."""
    attack = registry.load("attacks", part.name).attack
    needed = {"surrogate": net}
    return options(attack, QUICK) | {name: needed[name] for name in part.constants.get("NEEDS", ())}


def attacked(part: registry.Part, net: nn.Module, threat: Threat, seed: int = 0) -> torch.Tensor:
    attack = registry.load("attacks", part.name).attack
    draw = torch.Generator().manual_seed(seed)
    return attack(net, images(), classes(), threat, generator=draw, **supplied(part, net))


@parts("attacks")
@pytest.mark.parametrize(("norm", "eps"), [*itertools.product(NORMS, (0.1, 1.0)), ("linf", 0.0)])
def test_an_attack_stays_in_ball_and_box(part, norm, eps):
    threat = Threat(norm, eps)
    found = attacked(part, small(), threat)
    assert found.shape == images().shape
    assert not found.requires_grad
    assert bool(found.isfinite().all())
    assert threat.distance(found, images()).max() <= eps + SLACK
    assert found.min() >= 0
    assert found.max() <= 1


@parts("attacks")
@pytest.mark.parametrize("how", [None, "frozen"])
def test_an_attack_leaves_the_model_and_the_generators_alone(part, how):
    net = small()
    first, *_, last = net.parameters()
    first.requires_grad_(False)
    last.grad = torch.ones_like(last)
    net.bn1.train()
    if how is None:
        net.eval()
    with untouched(net):
        if how is None:
            attacked(part, net, Threat("linf", 0.1))
        else:
            with modes.attack_bn(net, how):
                attacked(part, net, Threat("linf", 0.1))


@parts("attacks")
def test_an_attack_changes_neither_images_nor_labels(part):
    attack = registry.load("attacks", part.name).attack
    x, y, draw = images(), classes(), torch.Generator().manual_seed(0)
    with untouched(x, y):
        found = attack(
            small(), x, y, Threat("linf", 0.1), generator=draw, **supplied(part, small())
        )
    assert found.data_ptr() != x.data_ptr()


@parts("attacks")
def test_an_attack_repeats_with_its_generator_under_no_grad_too(part):
    first = attacked(part, small(), Threat("linf", 0.1))
    torch.manual_seed(99)
    with torch.no_grad():
        second = attacked(part, small(), Threat("linf", 0.1))
    assert torch.equal(first, second)


@parts("attacks")
def test_an_attack_never_helps_the_model(part):
    """Of a planted net: who falls is known whatever the rounding, and one falls to anything."""
    planted, eps = known(CLASSES, COUNT, "linf", 0.05), 0.05
    attack, net, x, y = (
        registry.load("attacks", part.name).attack, planted.model, planted.x, planted.y
    )  # fmt: skip
    draw = torch.Generator().manual_seed(0)
    found = attack(net, x, y, Threat("linf", eps), generator=draw, **supplied(part, net))
    fooled = planted.fooled(found)
    assert not bool(fooled[planted.stands].any())
    assert bool(fooled[NEAREST]) == (part.name != "none")
    with torch.no_grad():
        clean, adversarial = (cross_entropy(net(each), y) for each in (x, found))
    raised = adversarial - clean
    raised[NEAREST] = 0  # right with less than even odds: it may break and lose no likelihood
    assert raised.mean() >= -1e-6


# --- analyses ---


def logits(seed: int, method: str = "at") -> Logits:
    """A logits file in memory, with its path and description as `attack` would give them."""
    y = classes()
    clean = 4 * nn.functional.one_hot(y, CLASSES) + 2 * draws(COUNT, CLASSES, seed=seed)
    adversarial = clean + 3 * draws(COUNT, CLASSES, seed=seed + 1)
    hit = adversarial.argmax(1) != y
    broken_by = torch.where(clean.argmax(1) != y, -2, torch.where(hit, 0, -1)).to(torch.int8)
    info = {
        "schema": 1, "kind": "logits", "digest": f"sha256:{seed}", "seed": seed,
        "parents": [{"kind": "checkpoint", "digest": f"sha256:c{seed}", "temperature": 2.0,
                     "seed": seed}],
        "config": {"attack": "pgd", "norm": "linf", "eps": "8/255", "data": "digits",
                   "seed": seed, "steps": 5, "limit": None, "batch_size": 250},
        "environment": {}, "versions": {}, "attacks": ["pgd"], "method": method,
        "arch": "small-cnn", "role": "best",
        "data": {"name": "digits", "split": "test", "digest": "sha256:d",
                 "classes": [str(c) for c in range(CLASSES)]},
    }  # fmt: skip
    norm = torch.full((COUNT,), 0.03)
    index = torch.arange(COUNT)
    return Logits(index, y, clean, info, adversarial, norm, broken_by, path=f"run/x{seed}.h5")


@pytest.fixture(scope="module", autouse=True)
def short_embeddings():
    """t-SNE's steps are scikit-learn's: what is asked here is what an analysis makes of them."""
    from sklearn import manifold

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifold, "TSNE", functools.partial(manifold.TSNE, max_iter=250))
        yield


def result_of(part: registry.Part, inputs: list[Logits]):
    if "logits" not in part.constants["KINDS"]:
        pytest.skip(f"{part.name} takes {', '.join(part.constants['KINDS'])}, not logits")
    before = [dataclasses.astuple(dataclasses.replace(each, info={})) for each in inputs]
    generators_before = generators()
    found = registry.load("analyses", part.name).analyze(inputs)
    after = [dataclasses.astuple(dataclasses.replace(each, info={})) for each in inputs]
    for first, second in zip(itertools.chain(*before), itertools.chain(*after), strict=True):
        same = torch.equal(first, second) if torch.is_tensor(first) else first == second
        assert same
    assert generators() == generators_before
    return found


def inputs_of(part: registry.Part) -> list[Logits]:
    if "outside" in part.constants.get("NEEDS", ()):
        return [logits(0), outside(logits(0))]
    if part.name == "union":  # other threat models of one net
        first = logits(0)
        config = {**first.info["config"], "norm": "l2", "eps": "0.5"}
        return [first, dataclasses.replace(first, info={**first.info, "config": config})]
    if part.name == "corruptions":
        return [corrupted(logits(0), name) for name in ("cifar10c-fog-1", "cifar10c-fog-3")]
    compares = part.constants.get("COMPARES", False)
    return [logits(0, "natural"), logits(10)] if compares else [logits(0)]


def corrupted(file: Logits, name: str) -> Logits:
    """A file as one of corrupted images."""
    return dataclasses.replace(
        file, info={**file.info, "data": {**file.info["data"], "name": name}}
    )


def outside(file: Logits) -> Logits:
    """The clean logits of a file as those of out-of-distribution data."""
    data = {**file.info["data"], "name": "other"}
    info = {**file.info, "attacks": [], "config": {"attack": "none"}, "data": data}
    return Logits(file.index, torch.full_like(file.labels, -1), file.clean, info, path=file.path)


@parts("analyses")
def test_an_analysis_gives_plain_finite_numbers(part):
    numbers = result_of(part, inputs_of(part)).numbers
    assert numbers
    plain = {name: value for name, value in numbers.items() if not name.endswith("_ci95")}
    assert {type(value) for value in plain.values()} <= {int, float, str, bool, type(None)}
    assert all(np.isfinite(value) for value in plain.values() if isinstance(value, float))
    for low, high in (numbers[name] for name in numbers.keys() - plain.keys() if numbers[name]):
        assert -np.inf < low <= high < np.inf


@parts("analyses")
def test_an_analysis_gives_a_whole_table_of_plain_cells(part):
    found = result_of(part, inputs_of(part))
    assert found.columns
    assert found.rows
    assert len(set(found.columns)) == len(found.columns)
    assert {len(row) for row in found.rows} == {len(found.columns)}
    cells = {type(cell) for row in found.rows for cell in row}
    assert cells <= {int, float, str, bool, type(None)}


@parts("analyses")
def test_an_analysis_says_the_same_twice_and_draws(part):
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    first, second = (result_of(part, inputs_of(part)) for _ in "ab")
    assert (first.numbers, first.rows) == (second.numbers, second.rows)
    for panel in first.panels:
        figure, axes = pyplot.subplots()
        panel(axes)
        assert axes.has_data()
        pyplot.close(figure)


@parts("analyses")
def test_an_analysis_needs_no_attack_or_says_so(part):
    clean = [
        dataclasses.replace(each, adversarial=None, norm=None, broken_by=None,
                            info={**each.info, "attacks": [], "config": {"attack": "none"}})
        for each in inputs_of(part)
    ]  # fmt: skip
    try:
        found = result_of(part, clean)
    except InputError:
        return  # "attack it first" is an answer; any other error is not
    assert found.numbers
    assert not [name for name in found.numbers if name.startswith(("adversarial", "robust"))]
