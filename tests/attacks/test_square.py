"""Square in l∞ as it is run here against the package's own loop: same answers, fewer passes."""

from __future__ import annotations

import pytest
import torch
from pyautoattack import fab_base
from pyautoattack.square import SquareAttack
from torch import nn

from advkit.attacks.upstream import autoattack, square
from advkit.formulas.threat import Threat
from tests.attacks.planted import known


class Counting(nn.Module):
    """Answers in double precision, so that no comparison hangs on the size of a batch."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net.double()
        self.rows: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.rows.append(len(x))
        return self.net(x.double())


class Holding(Counting):
    """Answers for windows in images that it holds, by whole passes; up to a size of windows."""

    windows = 0

    def hold_for_windows(self, images: torch.Tensor, side: int) -> Held | None:
        return Held(images, side) if side < 5 else None

    def forward(self, x: torch.Tensor, held: Held | None = None, top=0, left=0) -> torch.Tensor:
        if held is None:
            return super().forward(x)
        self.windows += 1
        assert x.shape[2:] == (held.side, held.side)
        held.tried = held.images.clone()
        held.tried[:, :, top : top + x.shape[2], left : left + x.shape[3]] = x
        return super().forward(held.tried)


class Held:
    fallen = 0

    def __init__(self, images: torch.Tensor, side: int) -> None:
        self.images = self.tried = images.clone()
        self.side = side

    def keep(self, rows: torch.Tensor) -> None:
        self.images[rows] = self.tried[rows]

    def restrict(self, rows: torch.Tensor) -> None:
        self.images = self.images[rows]
        Held.fallen += int((~rows).sum())


def attack(net: nn.Module, queries: int, eps: float, lean: bool) -> SquareAttack:
    made = SquareAttack(
        net, eps=eps, p_init=0.8, n_queries=queries, resc_schedule=False, seed=3, device="cpu"
    )
    if lean:
        square.walk(made)
    return made


def curved(size: tuple[int, int], kind: type[Counting] = Counting) -> Counting:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        inner = 6 * size[0] * size[1]
        layers = [nn.Conv2d(2, 6, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(inner, 4)]
    return kind(nn.Sequential(*layers))


@pytest.mark.parametrize(
    ("count", "queries", "size", "eps"),
    [(1, 400, (6, 6), 0.02), (9, 600, (6, 6), 0.05), (70, 60, (7, 5), 0.05), (5, 0, (6, 6), 0.05)],
)
def test_each_image_ends_as_in_the_package(count, queries, size, eps):
    """As many queries, and the same images, whether asked one by one or ahead."""
    net = curved(size)
    x = torch.rand(count, 2, *size, generator=torch.Generator().manual_seed(count))
    y = net(x).argmax(1)
    ends = []
    for lean in (False, True):
        one = attack(net, queries, eps, lean)
        one.init_hyperparam(x)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            ends.append(one.attack_single_run(x, y))
    (asked, images), (mine, found) = ends
    assert torch.equal(mine, asked)
    assert torch.allclose(found, images, rtol=0, atol=1e-6)
    assert torch.equal(net(found).argmax(1), net(images).argmax(1))


@pytest.mark.parametrize(("count", "eps"), [(70, 0.05), (14, 0.02), (40, 0.1)])
def test_images_end_the_same_in_a_net_that_answers_for_windows(count, eps):
    """As long as they walk together, and as many as are worth it; the patches shrink below 5."""
    ends = []
    Held.fallen = 0
    for kind in (Counting, Holding):
        net = curved((7, 6), kind)
        x = torch.rand(count, 2, 7, 6, generator=torch.Generator().manual_seed(count))
        y = net(x).argmax(1)
        one = attack(net, 500, eps, True)
        one.init_hyperparam(x)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            ends.append(one.attack_single_run(x, y))
    assert net.windows > 20
    assert Held.fallen > 0  # some reach the windows, and end there
    for mine, plain in zip(ends[1], ends[0], strict=True):
        assert torch.equal(mine, plain)


def test_few_images_are_asked_several_queries_at_once():
    """Two images that nothing breaks, and 400 queries of each."""
    case = known(5, 4)
    net = Counting(case.model)
    x, y = case.x[case.stands], case.y[case.stands]
    calls = []
    for lean in (False, True):
        net.rows.clear()
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            end = attack(net, 400, 0.05, lean).perturb(x, y)
        assert torch.equal(end, x)
        calls.append(len(net.rows))
    assert calls[0] == 403
    assert calls[1] < 403 / 2
    assert max(net.rows) <= square.FULL


class Level(nn.Module):
    """Margin 1 on every image."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.rows.append(len(x))
        return torch.tensor([[1.0, 0.0]]).expand(len(x), 2)


@pytest.mark.parametrize("eps", [0.1, 4e-7])
def test_what_changes_nothing_is_not_asked(eps):
    """An image of one pixel: a proposal of the sign that it has leaves it as it is."""
    net, queries = Level(), 40
    x, y = torch.full((1, 1, 1, 1), 0.5), torch.zeros(1, dtype=torch.int64)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        attack(net, queries, eps, True).perturb(x, y)
        torch.manual_seed(3)
        start = torch.rand(1) > 0.5
        signs = torch.rand(queries, 3)[:, 2] > 0.5  # behind two numbers for the window's place
    # Beside the queries: the clean image, the start, and what it came to.
    assert sum(net.rows) == 3 + int((signs != start).sum())


def test_the_package_is_left_as_it_was():
    own = fab_base.projection_linf, SquareAttack.attack_single_run
    autoattack.Judge(nn.Linear(1, 1), Threat("linf", 0.1), "standard", 3, 0)
    assert (fab_base.projection_linf, SquareAttack.attack_single_run) == own
    made = SquareAttack(nn.Linear(1, 1), norm="L2", eps=0.1)
    square.walk(made)
    assert "attack_single_run" not in vars(made)
