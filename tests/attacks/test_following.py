"""A net that computes only what a window reaches: the net's own answers, whoever asks and how."""

from __future__ import annotations

import pytest
import torch
from pyautoattack.square import SquareAttack
from torch import nn
from torch.nn import functional as F

from advkit import models
from advkit.attacks.upstream import boxes
from advkit.attacks.upstream.boxes import Box
from advkit.attacks.upstream.following import Following
from advkit.evaluation import folded
from advkit.models._blocks import SubsampledConv
from advkit.models._deepmind import SameConv
from tests.conftest import SEED

RNG = torch.Generator()


@pytest.fixture(autouse=True)
def seeded():
    """Draw the same in each test, whichever ran before."""
    torch.manual_seed(SEED)
    RNG.manual_seed(SEED)


@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("size", [(7, 9), (8, 8)])
def test_boxes_by_trying(kernel, stride, padding, size):
    """Change each position alone: what changes is what `reached` says, and `convolved` gives it."""
    conv = nn.Conv2d(2, 3, kernel, stride, padding).double()
    x = torch.rand(2, 2, *size, generator=RNG).double()
    full, before = Box(0, size[0], 0, size[1]), conv(x).detach()
    for box in (Box(0, 1, 0, 1), Box(2, 4, 3, 7), Box(size[0] - 1, size[0], 0, 2), full):
        other = x.clone()
        box.of(other).add_(1 + torch.rand(box.of(x).shape, generator=RNG))
        after = conv(other).detach()
        changed = ((after - before).abs() > 1e-12).any(0).any(0)
        out = boxes.reached(conv, box, full)
        if not bool(changed.any()):
            assert out.area == 0
            continue
        assert out == boxes.around(changed)
        part = boxes.convolved(conv, x, out, box.of(other), box)
        assert torch.allclose(part, out.of(after), atol=1e-12)


def test_a_box_around():
    changed = torch.zeros(5, 6, dtype=torch.bool)
    assert boxes.around(changed) == (0, 1, 0, 1), "never empty"
    changed[1, 4] = changed[3, 2] = True
    assert boxes.around(changed) == (1, 4, 2, 5)


@pytest.mark.parametrize(
    ("conv", "known"),
    [
        (nn.Conv2d(1, 1, 3), True),
        (SubsampledConv(1, 1, 1, 2, bias=False), True),
        (nn.Conv2d(1, 1, 3, dilation=2), False),
        (nn.Conv2d(1, 1, 3, padding="same"), False),
        (nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"), False),
        (SameConv(1, 1, 3), False),
        (nn.Linear(1, 1), False),
        (None, False),
    ],
)
def test_known_convolutions(conv, known):
    assert boxes.known(conv) == known


NETS = {
    "small-cnn": {"width": 4},
    "resnet8": {"width": 4},
    "resnet18": {"width": 4},
    "preact-resnet18": {"width": 4},
    "preact-resnet18 deepmind": {"width": 4, "form": "deepmind"},
    "wrn-10-1": {},
}


def built(which: str, size: int = 16) -> nn.Module:
    """Return a folded net whose statistics are those of some images.

    In float64: there a wrong answer and one of other rounding differ by far more than a tolerance.
    """
    name = which.split()[0]
    net = models.build(
        name, 10, channels=3, statistics=((0.5,) * 3, (0.25,) * 3), seed=SEED, **NETS[which]
    )
    images = torch.rand(40, 3, size, size, generator=RNG)
    (*_, last) = (module for module in net.modules() if isinstance(module, nn.Linear))
    with torch.no_grad():
        net.train()(images)
        last.bias -= net.eval()(images).mean(0)  # so that every class is predicted
    copy = folded.folded(net.eval())
    assert copy is not None
    return copy.double()


def batch(net: nn.Module, count: int = 6, size: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.rand(count, 3, size, size, generator=RNG).double()
    return x, net(x).argmax(1)


@pytest.mark.parametrize("which", NETS)
def test_answers_are_the_net_s_own(which):
    """Every query of Square: windows of all sizes, accepted or not, images leaving as they fall.

    A hair keeps the first image in its class: whatever the weights, a few windows push it out.
    """
    net = built(which)
    x = torch.rand(12, 3, 16, 16, generator=RNG)
    (*_, last) = (module for module in net.modules() if isinstance(module, nn.Linear))
    with torch.no_grad():
        best, second = net(x[:1].double())[0].topk(2)[1].tolist()
        near = net(x[:1].double())[0, best] - net(x[:1].double())[0, second]
        last.bias[best] -= near * (1 - 1e-4)
        y = net(x.double()).argmax(1)
    following, worst, sizes = Following(net, y), [], set()

    def asked(images):
        images = images.double()
        found, expected = following(images), net(images)
        worst.append(float((found - expected).abs().max() / expected.abs().max()))
        sizes.add(len(images))
        return found

    attack = SquareAttack(asked, n_queries=160, eps=0.004, seed=0, p_init=0.8, resc_schedule=False,
                          device="cpu")  # fmt: skip
    attack.p_selection = lambda query: 0.8 if query < 40 else 0.1 if query < 80 else 0.006
    with torch.random.fork_rng():
        attack.perturb(x, y)
    assert max(worst) < 1e-11
    assert len(worst) > 100
    assert len(sizes) > 1, "some fell and left the batch"


def test_computes_little(monkeypatch):
    """A change of one pixel reaches 3², 5² and 7² of the positions of three 3×3 convolutions."""
    convs = [nn.Conv2d(3, 4, 3, padding=1) for _ in range(3)]
    for conv, width in zip(convs, (3, 4, 4), strict=True):
        conv.weight = nn.Parameter(torch.randn(4, width, 3, 3, generator=RNG) / 6)
    parts = [part for conv in convs for part in (conv, nn.BatchNorm2d(4), nn.ReLU())]
    net = folded.folded(nn.Sequential(*parts, nn.Flatten(), nn.Linear(4 * 32 * 32, 5)).eval())
    x, y = torch.rand(2, 3, 32, 32, generator=RNG), torch.zeros(2, dtype=torch.int64)
    following = Following(net, y)
    following(x)
    following(x)
    following.margin.fill_(1.0)
    areas, original = [], F.conv2d

    def counted(images, *rest):
        found = original(images, *rest)
        areas.append(found.shape[2] * found.shape[3])
        return found

    monkeypatch.setattr(boxes.F, "conv2d", counted)
    other = x.clone()
    other[:, :, 16, 16] += 0.1
    following(other)
    assert areas == [9, 25, 49]
    areas.clear()
    following(other[:1])
    assert max(areas, default=1024) == 1024, "another batch than expected: the whole net"


@pytest.mark.parametrize("which", NETS)
def test_every_net_of_ours_is_followed(which, monkeypatch):
    """One pixel changes: the first convolutions are computed in part."""
    net = built(which, 32)
    x, y = batch(net, 2, 32)
    following = Following(net, y)
    for _ in range(2):
        following(x)
    following.margin.fill_(1.0)
    parts, original = [], boxes.convolved
    monkeypatch.setattr(boxes, "convolved", lambda *x: parts.append(x) or original(*x))
    other = x.clone()
    other[:, :, 16, 16] += 0.1
    assert torch.allclose(following(other), net(other), atol=1e-10)
    assert len(parts) >= (1 if "deepmind" in which else 3)


def test_unchanged_images_are_not_computed():
    net = built("small-cnn")
    x, y = batch(net, 8)
    following = Following(net, y)
    for _ in range(2):
        following(x)
    following.margin.fill_(1.0)
    other = x.clone()
    other[3, :, 5, 5] += 0.1
    seen, first = [], following.steps[0]
    original = type(first).__call__

    def counted(step, values):
        found = original(step, values)
        seen.append(len(found))
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(first), "__call__", counted)
        found = following(other)
    assert set(seen) == {1}
    assert torch.allclose(found, net(other), atol=1e-10)
    following.margin.fill_(1.0)
    assert torch.allclose(following(x), net(x), atol=1e-10)


def test_calls_in_another_order():
    """Right answers to whatever comes: other sizes, other images, more rows."""
    net = built("resnet8")
    x, y = batch(net, 5)
    following = Following(net, y)
    for images in (x, x[:3], x, torch.rand_like(x), x[1:2], x[:0], x):
        assert torch.allclose(following(images), net(images), atol=1e-10)
    following = Following(net, y)
    for images in (x, x, x[:3], x, torch.rand_like(x), x[1:2], x[:0], x):
        assert torch.allclose(following(images), net(images), atol=1e-10)


class MeanImage(nn.Module):
    """Takes away an image, which is no constant of a channel."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("image", torch.rand(3, 16, 16, generator=RNG))
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        both = torch.cat([self.norm(self.conv(x - self.image)), self.conv(x)], 1)
        return F.max_pool2d(both, 2).flatten(1)[:, :10]


def test_what_it_does_not_know_is_computed_whole():
    net = folded.folded(MeanImage().eval())
    if net is None:  # its convolution is called twice, so nothing is folded
        net = torch.fx.symbolic_trace(MeanImage().eval())
    net.double()
    x, y = torch.rand(4, 3, 16, 16, generator=RNG).double(), torch.zeros(4, dtype=torch.int64)
    following = Following(net, y)
    for _ in range(2):
        following(x)
    following.margin.fill_(1.0)
    other = x.clone()
    other[:, :, 3:5, 4:6] += 0.1
    assert torch.allclose(following(other), net(other), atol=1e-10)
