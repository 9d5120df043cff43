"""Every part keeps its folder's contract from its first day: a new file is tested by itself."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import typing

import numpy as np
import pytest
import torch

from advkit import contracts, data, registry
from advkit.artifacts.hdf5 import Logits
from advkit.contracts import logits as files
from advkit.contracts.scene import CLASSES, COUNT, generators, small, untouched
from advkit.contracts.shelves import analysis_gives_a_plain_table, attacked, supplied
from advkit.errors import InputError
from advkit.formulas.losses import cross_entropy
from advkit.formulas.threat import Threat
from advkit.runtime import modes
from tests.attacks.planted import NEAREST, known

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


# --- every part ---


def test_every_part_is_proper():
    assert [(named(part), part.problems) for part in EVERY if part.problems] == []


CHECKED = [
    pytest.param(part, check, id=f"{named(part)}-{check.__name__}")
    for part in EVERY
    for check in contracts.checks(part.folder)
    if part.folder != "analyses" or check in contracts.COMMON
]
"""Analyses are tried below, on inputs that suit each."""


@pytest.mark.parametrize(("part", "check"), CHECKED)
def test_a_part_keeps_its_promises(part, check):
    """The checks that `advkit parts check` runs on other people's parts."""
    check(part)


# --- data ---


@parts("data", FILES=None)
@pytest.mark.parametrize("split", ["train", "test"])
def test_data_whose_files_are_not_there_say_so_in_a_line(part, split, tmp_path):
    for root in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match=r" there|no such folder") as caught:
            data.load(part.name, split, root=root)
        assert str(root) in str(caught.value)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "nowhere").exists()  # nothing is ever downloaded unasked


# --- attacks ---


@parts("attacks")
def test_an_attack_leaves_a_net_of_mixed_modes_alone(part):
    net = small()
    net.bn1.train()
    with untouched(net), modes.attack_bn(net, "frozen"):
        attacked(part, net, Threat("linf", 0.1))


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
    if part.name == "union":  # other threat models of one net
        first = files.logits(0)
        config = {**first.info["config"], "norm": "l2", "eps": "0.5"}
        return [first, dataclasses.replace(first, info={**first.info, "config": config})]
    if part.name == "corruptions":
        return [corrupted(files.logits(0), name) for name in ("cifar10c-fog-1", "cifar10c-fog-3")]
    if part.name == "temperature":  # seeds of one recipe
        return [files.logits(0), files.logits(10)]
    return files.inputs(part)


def corrupted(file: Logits, name: str) -> Logits:
    """A file as one of corrupted images."""
    return dataclasses.replace(
        file, info={**file.info, "data": {**file.info["data"], "name": name}}
    )


@parts("analyses")
def test_an_analysis_gives_a_plain_table(part):
    analysis_gives_a_plain_table(part, inputs_of(part))


@parts("analyses")
def test_an_analysis_gives_intervals_in_order(part):
    numbers = result_of(part, inputs_of(part)).numbers
    for low, high in (
        numbers[name] for name in numbers if name.endswith("_ci95") and numbers[name]
    ):
        assert -np.inf < low <= high < np.inf


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
