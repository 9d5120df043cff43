"""What augmentations promise."""

from __future__ import annotations

from functools import partial

import torch
from torch import Generator, Tensor

from advkit import registry
from advkit.contracts.scene import demand, generators, having
from advkit.registry import Part

SHAPES = ((3, 32, 32), (1, 8, 8), (3, 5, 7), (1, 1, 1))
COUNT = 6


def changes_images_and_nothing_else(part: Part) -> None:
    """For images of several shapes: shape and dtype kept, the given ones as they were."""
    for shape in SHAPES:
        pictures, rows = _pictures(shape), _rows(part, shape)
        before = pictures.clone(), rows.clone()
        changed = _apply(part, shape)(pictures, rows)
        demand(
            rows.dim() == 2 and len(rows) == COUNT, f"draw gives {tuple(rows.shape)}, not n rows"
        )
        same = changed.shape == pictures.shape and changed.dtype == torch.uint8
        demand(
            same, f"uint8 images {(COUNT, *shape)} become {changed.dtype} {tuple(changed.shape)}"
        )
        kept = torch.equal(pictures, before[0]) and torch.equal(rows, before[1])
        demand(kept, "it changes the images or the rows that it is given")


def draws_from_its_generator_alone(part: Part) -> None:
    """The same generator gives the same images, whatever the global ones hold."""
    shape = (3, 8, 8)
    before = generators()
    first = _apply(part, shape)(_pictures(shape), _rows(part, shape))
    demand(generators() == before, "it draws from a global random generator")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        again = _apply(part, shape)(_pictures(shape), _rows(part, shape))
    demand(torch.equal(first, again), "called twice with equal generators it gives other images")


def an_image_is_changed_by_its_own_row(part: Part) -> None:
    """So that processes, which share a batch, make of it what one makes.

    Of what `MIXES` images: partners are of the batch, and weights are shares.
    """
    shape = (3, 8, 8)
    pictures, rows = _pictures(shape), _rows(part, shape)
    if part.constants.get("MIXES", False):
        partner, weight = registry.load("augment", part.name).mixed(rows, shape)
        inside = (partner.dtype == torch.int64) and ((partner >= 0) & (partner < COUNT)).all()
        demand(inside, "a partner is none of the batch")
        demand(((weight >= 0) & (weight <= 1)).all(), "a weight is no share")
        demand(partner.shape == weight.shape == (COUNT,), "partners and weights are not n")
        return
    apply = _apply(part, shape)
    alone = [apply(pictures[i : i + 1], rows[i : i + 1]) for i in range(COUNT)]
    demand(
        torch.equal(apply(pictures, rows), torch.cat(alone)),
        "what it makes of an image depends on the others of the batch",
    )


def no_images_are_no_work(part: Part) -> None:
    """Drawing for no images gives no rows."""
    demand(len(_rows(part, (3, 8, 8), 0)) == 0, "it draws rows for no images")


def _generator(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


def _pictures(shape: tuple[int, int, int]) -> Tensor:
    return torch.randint(0, 256, (COUNT, *shape), generator=_generator(5), dtype=torch.uint8)


def _rows(part: Part, shape: tuple[int, int, int], n: int = COUNT) -> Tensor:
    draw = registry.load("augment", part.name).draw
    rows: Tensor = draw(n, shape, **having(draw, {"generator": _generator(), **_own(shape)}))
    return rows


def _apply(part: Part, shape: tuple[int, int, int]) -> partial[Tensor]:
    apply = registry.load("augment", part.name).apply
    return partial(apply, **having(apply, _own(shape)))


def _own(shape: tuple[int, int, int]) -> dict[str, object]:
    """Return what a data set of such images would declare: an eighth of a side, and flips."""
    return {"pad": min(4, shape[1] // 8), "flip": True}
