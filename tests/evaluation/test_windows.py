"""What a window changes, computed alone: the same logits as those of whole images."""

from __future__ import annotations

import signal

import pytest
import torch
from pyautoattack.square import SquareAttack
from torch import Tensor, nn
from torch.nn import functional as F

from advkit.attacks.upstream import square
from advkit.errors import Stopped
from advkit.evaluation import folded, fused, windows
from advkit.evaluation.searched import Searched, searched
from advkit.evaluation.settings import AttackSettings
from advkit.runtime import signals
from advkit.runtime.reporting import Reporter
from tests.evaluation.test_fused import NETS, built, traced

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this PyTorch has no oneDNN"
)


class Wired(nn.Module):
    """Layers of every geometry, of 3×11×9 images."""

    def __init__(self, wiring: str) -> None:
        super().__init__()
        self.wiring = wiring
        torch.manual_seed(2)
        self.a = nn.Conv2d(3, 4, 3, padding=1)
        self.b = nn.Conv2d(4, 4, (1, 5), padding=(0, 2), stride=(2, 1), bias=False)
        self.c = nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=2)
        self.d = nn.Conv2d(4, 4, 2, stride=3)  # reads not all of its input
        self.gaps = nn.Conv2d(4, 4, 4, stride=6)
        self.far = nn.Conv2d(3, 4, 1, padding=1)  # padding beyond what its kernel reads
        self.bn, self.relu = nn.BatchNorm2d(4), nn.ReLU()
        self.batch = nn.BatchNorm2d(4, track_running_stats=False)
        self.register_buffer("place", torch.rand(4, 11, 9))
        self.register_buffer("channel", torch.rand(4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        if self.wiring == "far":
            return self.far(x * 2).flatten(1)
        a = self.a((x - 0.5) / 0.25)
        if self.wiring == "row":
            return self.d(F.relu(self.c(F.relu(self.b(F.relu(a)))))).flatten(1)
        if self.wiring == "pixelwise":
            b = self.relu(self.bn(a * self.channel + 1) - self.channel)
            return self.c(torch.relu(2 - b)).flatten(1)
        if self.wiring == "gaps":
            return self.gaps(a).flatten(1)
        if self.wiring == "batch":  # normalised by what it is given
            return self.c(self.batch(a)).flatten(1)
        if self.wiring == "two":  # what a ReLU reads is read by another, and held
            b = self.bn(a)
            return (self.b(b) + self.b(F.relu(b))).flatten(1)
        if self.wiring == "keyword":
            return self.c(self.bn(input=a)).flatten(1)
        if self.wiring == "dead":
            self.c(a)
            return self.b(a).flatten(1)
        if self.wiring == "itself":
            return (self.c(a) * self.c(a)).flatten(1)
        if self.wiring == "sizes":
            b = self.b(a)
            return F.interpolate(b, size=(b.shape[2] * 2, b.shape[3])).flatten(1)
        if self.wiring == "places":  # a number for each place, and what windows do not know
            return self.c(F.silu(a * self.place)).flatten(1)
        if self.wiring == "branches":
            return (self.b(a) + self.b(F.relu(self.c(a)))).flatten(1)
        if self.wiring == "images":  # the images are read by the rest, too
            return torch.cat([self.c(a).flatten(1), F.silu(x).flatten(1)], 1)
        assert self.wiring == "over"  # what is held is read by a sum that may write over it
        return F.relu(self.c(F.silu(a)) + a).flatten(1)


WIRINGS = (
    "row", "pixelwise", "places", "branches", "images", "over", "far", "gaps", "batch", "two",
    "keyword", "dead", "itself", "sizes",
)  # fmt: skip


def near_and_whole(form: nn.Module, shape: tuple[int, ...], side: int) -> None:
    """Walk as Square does, and compare the logits of every step."""
    draw = torch.Generator().manual_seed(side)
    images = torch.rand(6, *shape, generator=draw)
    held = windows.Held(windows.Plan(form, torch.Size(shape), side), images)
    height, width = shape[1] - side, shape[2] - side
    corners = [(0, 0), (0, width), (height, 0), (height, width)]
    inner = [(height // 2, width // 2), (min(1, height), width // 3), (height // 3, width)]
    for step, (top, left) in enumerate([*corners, *inner, *inner]):
        window = torch.rand(len(images), shape[0], side, side, generator=draw)
        tried = images.clone()
        tried[:, :, top : top + side, left : left + side] = window
        torch.testing.assert_close(
            held.logits(window, top, left), form(tried), rtol=1e-4, atol=1e-4
        )
        kept = torch.rand(len(images), generator=draw) < (0.5, 0.0, 1.0)[step % 3]
        held.keep(kept)
        images[kept] = tried[kept]
        if step == 4:
            rows = torch.tensor([True, False, True, True, False, True])
            held.restrict(rows)
            images = images[rows]


@pytest.mark.parametrize("least", [0.3, -9.0])
@pytest.mark.parametrize("side", [1, 2, 5])
@pytest.mark.parametrize("name", [name for name in NETS if name != "resnet50"])
@torch.no_grad()
def test_windows_of_a_net(monkeypatch, name, side, least):
    monkeypatch.setattr(windows, "LEAST", least)
    near_and_whole(fused.fused(folded.folded(built(name))), (3, 16, 16), side)


@pytest.mark.parametrize("least", [0.3, -9.0])
@pytest.mark.parametrize("side", [1, 2, 3, 9])
@pytest.mark.parametrize("wiring", WIRINGS)
@torch.no_grad()
def test_windows_of_every_geometry(monkeypatch, wiring, side, least):
    monkeypatch.setattr(windows, "LEAST", least)
    form = fused.fused(traced(Wired(wiring)))
    near_and_whole(form, (3, 11, 9), side)


@pytest.mark.parametrize(
    ("wiring", "names"),
    [
        ("row", "x sub truediv a b c d"),
        ("pixelwise", "x sub truediv a mul add bn sub_1 relu sub_2 relu_1 c"),
        ("places", "x sub truediv a"), ("branches", "x sub truediv a c b b"),
        ("images", "x sub truediv a c"), ("over", "x sub truediv a"), ("far", "x mul"),
        ("gaps", "x sub truediv a gaps"), ("batch", "x sub truediv a"),
        ("two", "x sub truediv a bn relu b b"), ("keyword", "x sub truediv a"),
        ("dead", "x sub truediv a c b"), ("itself", "x sub truediv a c c"),
        ("sizes", "x sub truediv a b"),
    ],
)  # fmt: skip
def test_what_is_computed_in_part(monkeypatch, wiring, names):
    """ReLUs and sums behind convolutions are part of them."""
    monkeypatch.setattr(windows, "LEAST", -9.0)
    net = Wired(wiring)
    plan = windows.Plan(fused.fused(traced(net)), torch.Size((3, 11, 9)), 2)
    known = {id(module): name for name, module in net.named_modules()}

    def name(layer) -> str:
        part = getattr(layer.compute, "__self__", None)
        return known[id(part.conv)] if isinstance(part, fused.Convolution) else str(layer.node)

    assert " ".join(map(name, plan.layers)) == names


def test_a_window_is_computed_alone():
    """The places that a window of 2×2 comes to, layer by layer, worked by hand."""
    form = fused.fused(folded.folded(built("resnet8")))
    plan = windows.Plan(form, torch.Size((3, 32, 32)), 2)
    boxes = plan.boxes(((15, 17), (10, 12)))
    convolutions = [boxes[layer.node] for layer in plan.layers if layer.axes]
    # The stem; the block's first, with what its second reads and is not held; its second; and the
    # next block's first, whose outputs see inputs 2o - 1 to 2o + 1 of 12 to 19 and 7 to 14.
    assert convolutions == [
        ((14, 18), (9, 13)), ((11, 21), (6, 16)), ((12, 20), (7, 15)), ((6, 11), (3, 8)),
    ]  # fmt: skip
    corner = plan.boxes(((0, 2), (30, 32)))
    assert [corner[layer.node] for layer in plan.layers if layer.axes] == [
        ((0, 3), (29, 32)), ((0, 6), (26, 32)), ((0, 5), (27, 32)), ((0, 3), (13, 16)),
    ]  # fmt: skip


def test_of_convolutions_in_a_row_every_other_is_held(monkeypatch):
    """Else the first would be computed as far out as all of them see."""
    monkeypatch.setattr(windows, "LEAST", -9.0)
    plan = windows.Plan(fused.fused(traced(Wired("row"))), torch.Size((3, 11, 9)), 1)
    assert [layer.reader is None for layer in plan.layers if layer.axes] == [
        True, False, True, True,
    ]  # fmt: skip


def test_where_it_is_worth_while(monkeypatch):
    def plan(width: int, size: int, side: int) -> windows.Plan:
        net = built_of(width)
        return windows.Plan(net, torch.Size((3, size, size)), side)

    def built_of(width: int) -> nn.Module:
        torch.manual_seed(0)
        layers = [nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)]
        return fused.fused(traced(nn.Sequential(*layers, nn.Flatten())))

    assert plan(64, 32, 2).worth(12)
    assert not plan(64, 32, 2).worth(0)
    assert not plan(4, 8, 2).worth(12)  # slices cost more than they save
    assert not plan(64, 32, 30).worth(12)  # a window that is most of the image
    # Two of two layers are computed in part, and save a fifth.
    monkeypatch.setattr(windows, "LEAST", 0.1)
    most = plan(64, 32, 25)
    assert 0.1 < most.saved / most.all < windows.SHARE
    assert not most.worth(1000)


@torch.no_grad()
def test_a_searched_net_answers_for_windows():
    net = folded.folded(built("resnet18"))
    quick = Searched(net, fused.fused(net))
    images = torch.rand(40, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert quick.hold_for_windows(images[:2], 2) is None
    held = quick.hold_for_windows(images, 2)
    window = torch.zeros(40, 3, 2, 2)
    images[:, :, 5:7, 30:32] = 0
    torch.testing.assert_close(quick(window, held, 5, 30), net(images), rtol=1e-4, atol=1e-4)
    other = quick.hold_for_windows(torch.rand(40, 3, 48, 32), 2)  # a plan is for one shape
    assert other.plan is not held.plan
    assert quick.hold_for_windows(images, 2).plan is held.plan


def test_an_input_that_nobody_gives():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding=1)

        def forward(self, x: Tensor, targets: Tensor | None = None) -> Tensor:
            return F.silu(self.conv(x)).flatten(1)

    torch.manual_seed(0)
    with torch.no_grad():
        near_and_whole(fused.fused(traced(Net())), (3, 11, 9), 2)


@pytest.mark.parametrize("fault", ["wrong", "fails"])
def test_windows_that_are_wrong_or_fail_are_not_asked_for(monkeypatch, fault):
    def logits(self, window, top, left):
        if fault == "fails":
            raise KeyError("a graph of another kind")
        return torch.ones(len(window), 5)

    notes: list[str] = []

    class Listening(Reporter):
        def note(self, text: str) -> None:
            notes.append(text)

    settings = AttackSettings("autoattack", "linf", "8/255", "digits", 0)
    images = torch.rand(64, 3, 32, 32)
    net = built("resnet18")
    quick = searched(net, settings, images[:8], Listening())
    assert quick.hold_for_windows(images, 2) is not None
    assert notes == []
    monkeypatch.setattr(windows.Held, "logits", logits)
    quick = searched(net, settings, images[:8], Listening())
    assert quick.hold_for_windows(images, 2) is None
    (note,) = notes
    assert ("KeyError" if fault == "fails" else "as the whole") in note
    with torch.no_grad():
        torch.testing.assert_close(quick(images), net(images), rtol=1e-4, atol=1e-4)


def test_a_signal_is_no_reason_to_go_on_without_windows(monkeypatch):
    def logits(self, window, top, left):
        raise signals.ended(signal.SIGTERM)

    monkeypatch.setattr(windows.Held, "logits", logits)
    settings = AttackSettings("autoattack", "linf", "8/255", "digits", 0)
    with pytest.raises(Stopped):
        searched(built("resnet8"), settings, torch.rand(4, 3, 16, 16), Reporter())


@torch.no_grad()
def test_square_knows_the_margins_of_the_images_that_it_stands_at():
    """Over blocks, sizes of windows and images that end, in a net that holds them."""
    net = built("resnet18")
    images = torch.rand(40, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    net.linear.bias -= net(images).mean(0)  # so that margins are small
    copy = folded.folded(net)
    quick = Searched(copy, fused.fused(copy))
    y = quick(images).argmax(1)
    attack = SquareAttack(
        quick, eps=0.01, p_init=0.1, n_queries=300, resc_schedule=False, device="cpu"
    )
    attack.init_hyperparam(images)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        search = square._Search(attack, images, y, images.clone())
        held = set()
        for begin in range(0, 300, 100):
            drawn = square._Proposals.drawn(attack, range(begin, begin + 100), images.shape[1:])
            search.through(drawn)
            held.add(None if search.held is None else search.held[0])
    assert held - {None}
    expected = square._margins(quick(search.best), y)
    torch.testing.assert_close(search.margin, expected, rtol=1e-3, atol=1e-4)
    assert float((search.best - images).abs().max()) <= 0.01 + 1e-6
    assert 0 < int((search.margin <= 0).sum()) < 40
