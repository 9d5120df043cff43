"""Every augmentation keeps the shelf's promises: shapes, dtype, its own draws, nothing touched."""

from __future__ import annotations

import pickle
import random

import numpy as np
import pytest
import torch

from advkit import registry
from advkit.config.resolve import resolve
from advkit.errors import UsageError
from advkit.images.augment import Augmentation
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


def pictures(n: int, shape: tuple[int, int, int]) -> torch.Tensor:
    return torch.randint(0, 256, (n, *shape), generator=generator(5), dtype=torch.uint8)


def pad_of(shape: tuple[int, int, int]) -> int:
    return min(4, shape[1] // 8)


def drawn(name: str, n: int, shape: tuple[int, int, int], seed: int = 0) -> torch.Tensor:
    return named(name).draw(n, shape, generator(seed), pad_of(shape), True)


@every
@shaped
def test_images_keep_shape_and_dtype_and_are_left_as_they_were(name, shape):
    images, rows = pictures(6, shape), drawn(name, 6, shape)
    before = images.clone(), rows.clone()
    changed = named(name).apply(images, rows, pad_of(shape))
    assert rows.shape[0] == 6
    assert rows.dim() == 2
    assert (changed.shape, changed.dtype) == (images.shape, torch.uint8)
    assert torch.equal(images, before[0])
    assert torch.equal(rows, before[1])


@every
def test_draws_are_of_the_generator_given_and_of_no_other(name):
    shape = (3, 8, 8)
    states = torch.get_rng_state(), random.getstate(), str(np.random.get_state())
    first = named(name).apply(pictures(6, shape), drawn(name, 6, shape), 1)
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1:] == (random.getstate(), str(np.random.get_state()))
    torch.manual_seed(8)
    again = named(name).apply(pictures(6, shape), drawn(name, 6, shape), 1)
    assert torch.equal(first, again)
    other = drawn(name, 6, shape, seed=1)
    assert torch.equal(other, drawn(name, 6, shape)) == (name == "none")


@pytest.mark.parametrize("name", [name for name in NAMES if named(name).mixed is None])
def test_an_image_is_changed_by_its_own_row_alone(name):
    """So that ranks, which share a batch, make of it what one process makes."""
    shape = (3, 8, 8)
    images, rows = pictures(6, shape), drawn(name, 6, shape)
    whole = named(name).apply(images, rows, 1)
    alone = [named(name).apply(images[i : i + 1], rows[i : i + 1], 1) for i in range(6)]
    assert torch.equal(whole, torch.cat(alone))


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


@every
def test_no_images_are_no_work(name):
    assert len(drawn(name, 0, (3, 8, 8))) == 0


def test_a_part_that_mixes_says_what(tmp_path):
    path = tmp_path / "half.py"
    path.write_text(
        '"""Half of another image."""\n\nMIXES = True\n\n\n'
        "def draw(n, shape): ...\n\n\ndef apply(images, drawn): ...\n"
    )
    (problem,) = registry._read("augment", path).problems
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
