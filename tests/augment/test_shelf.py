"""Augmentations as runs bind them; their promises are checked in tests/contracts."""

from __future__ import annotations

import ast
import pickle

import pytest
import torch

from advkit import registry
from advkit.config.resolve import resolve
from advkit.errors import UsageError
from advkit.images.augment import Augmentation
from advkit.registry import sources
from advkit.training.parts import augmentation_of

NAMES = sorted(registry.parts("augment"))
SHAPES = [(3, 32, 32), (1, 8, 8), (3, 5, 7), (1, 1, 1)]
every = pytest.mark.parametrize("name", NAMES)
shaped = pytest.mark.parametrize("shape", SHAPES, ids=str)


def named(name: str, **options: object) -> Augmentation:
    layer = {"data": "digits", "augment": name, **options}
    return augmentation_of(resolve((layer, "flag")).settings)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pad_of(shape: tuple[int, int, int]) -> int:
    return min(4, shape[1] // 8)


def drawn(name: str, n: int, shape: tuple[int, int, int], seed: int = 0) -> torch.Tensor:
    return named(name).draw(n, shape, generator(seed), pad_of(shape), True)


@pytest.mark.parametrize("name", [name for name in NAMES if named(name).mixed is not None])
@shaped
def test_partners_are_of_the_batch_and_weights_are_shares(name, shape):
    partner, weight = named(name).mixed(drawn(name, 6, shape), shape)
    assert partner.dtype == torch.int64
    assert bool(((partner >= 0) & (partner < 6)).all())
    assert bool(((weight >= 0) & (weight <= 1)).all())
    assert partner.shape == weight.shape == (6,)


@every
def test_workers_of_any_kind_can_be_given_it(name):
    sent = pickle.loads(pickle.dumps(named(name)))
    rows = sent.draw(6, (3, 8, 8), generator(), 1, True)
    assert torch.equal(rows, drawn(name, 6, (3, 8, 8)))


def test_a_part_that_mixes_says_what(tmp_path):
    path = tmp_path / "augment" / "half.py"
    path.parent.mkdir()
    path.write_text(
        '"""Half of another image."""\n\nMIXES = True\n\n\n'
        "def draw(n, shape): ...\n\n\ndef apply(images, drawn): ...\n"
    )
    with registry.using(str(tmp_path)):
        (problem,) = registry.parts("augment")["half"].problems
    assert problem == "line 1: it MIXES, but has no function mixed(drawn, shape)"


@pytest.mark.parametrize("name", ["cropshift", "idbh"])
@pytest.mark.parametrize("wrong", [{"shift_most": 8}, {"shift_least": 3, "shift_most": 2}])
def test_strengths_that_leave_nothing_are_refused(name, wrong):
    with pytest.raises(UsageError, match="below the images' 8 pixels"):
        named(name, **wrong).draw(0, (1, 8, 8), generator(), 1, True)


@pytest.mark.parametrize("name", ["cropshift", "idbh"])
def test_flips_are_the_data_sets(name):
    rows = named(name).draw(50, (1, 8, 8), generator(), 1, False)
    assert int(rows[:, 0].sum()) == 0
    assert 0 < int(drawn(name, 50, (1, 8, 8))[:, 0].sum()) < 50


@pytest.mark.parametrize(
    ("name", "before"),
    [
        ("idbh", "4818c954a5d2bce27ce77f63340b1a6a2954023cc3b6342f72fdce99c6492aff"),
        ("autoaugment", "1ea005adbe599fefc4e82055c29f15790e15fd0ab7b91b80c0b8906e05ce7771"),
    ],
)
def test_a_declaration_that_changes_no_image_lets_runs_go_on(name, before):
    """Digests from before they said `BY_IMAGE`: without that line the source means the same."""
    assert sources.digest("augment", name) == f"sha256:{before}"
    part = registry.part("augment", name)
    tree = ast.parse(part.path.read_text(encoding="utf-8"))
    said = [node for node in tree.body if ast.unparse(node) == "BY_IMAGE = True"]
    assert len(said) == 1
    assert named(name).by_image
