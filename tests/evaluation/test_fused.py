"""Passes without a gradient in fused operators: the same answers, and what is left alone."""

from __future__ import annotations

import pytest
import torch
from torch import fx, nn
from torch.nn import functional as F

from advkit import models
from advkit.evaluation import folded, fused
from advkit.evaluation.searched import Searched, searched
from advkit.evaluation.settings import AttackSettings
from advkit.runtime.reporting import Reporter

NETS = {
    "small-cnn": {"width": 4}, "resnet8": {"width": 4}, "resnet18": {"width": 16},
    "preact-resnet18": {"width": 4}, "wrn-10-1": {}, "resnet50": {},
}  # fmt: skip
X = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this PyTorch has no oneDNN"
)


def moved(net: nn.Module) -> nn.Module:
    """Give every normalisation statistics and an affine map of its own."""
    draw = torch.Generator().manual_seed(1)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for each in (module.running_mean, module.bias):
                each.data.copy_(0.3 * torch.randn(each.shape, generator=draw))
            for each in (module.running_var, module.weight):
                each.data.copy_(0.5 + torch.rand(each.shape, generator=draw))
    return net.eval().requires_grad_(False)


def built(name: str) -> nn.Module:
    options = NETS[name]
    net = models.build(name, 5, channels=3, statistics=((0.5,) * 3,) * 2, seed=1, **options)
    return moved(net)


def traced(net: nn.Module) -> fx.GraphModule:
    return fx.symbolic_trace(net.eval().requires_grad_(False))


def gradient(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    x = x.clone().requires_grad_(True)
    (found,) = torch.autograd.grad(net(x).square().sum(), x)
    return found


def parts(form: fx.GraphModule) -> list[nn.Module]:
    """Return what is fused, in the order of the graph."""
    return [
        form.get_submodule(str(node.target))
        for node in form.graph.nodes
        if node.op == "call_module" and str(node.target).startswith("fused")
    ]


@pytest.mark.parametrize("name", NETS)
def test_a_net_answers_as_before_and_keeps_its_images(name):
    net = built(name)
    quick = fused.fused(folded.folded(net))
    x = X.clone()
    with torch.no_grad():
        expected = net(x)
        # Twice, and in other batches: weights are packed by the first pass.
        for found in (quick(x), quick(x), torch.cat([quick(x[:3]), quick(x[3:])])):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(x, X)
    assert not any(node.op == "call_module" and isinstance(
        quick.get_submodule(str(node.target)), nn.ReLU) for node in quick.graph.nodes
    )  # fmt: skip
    assert len(parts(quick)) >= 3


def test_a_gradient_and_a_single_image_are_the_nets_own():
    net = folded.folded(built("resnet8"))
    quick = Searched(net, fused.fused(net))
    assert torch.equal(gradient(quick, X), gradient(net, X))
    quick.form = nn.Identity()
    with torch.no_grad():
        assert torch.equal(quick(X[:1]), net(X[:1]))
        assert torch.equal(quick(X), X)  # others do go there


class Wired(nn.Module):
    """Convolutions whose outputs are read as `wiring` says."""

    def __init__(self, wiring: str) -> None:
        super().__init__()
        self.wiring = wiring
        torch.manual_seed(2)
        self.a, self.b, self.c = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))
        self.relu, self.silu = nn.ReLU(), nn.SiLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = F.relu(self.a(x))
        if self.wiring == "last":  # a is read by b and by the sum, and by nobody after it
            return F.relu(self.b(self.c(a)) + a).flatten(1)
        if self.wiring == "later":
            total = F.relu(self.b(self.c(a)) + a)
            return total.flatten(1) + a.flatten(1)
        if self.wiring == "view":  # what is read later is made before, and lies where a does
            view = a.flatten(1)
            return F.relu(self.b(self.c(a)) + a).flatten(1) + view
        if self.wiring == "itself":
            b = self.b(a)
            return (b + b).flatten(1)
        if self.wiring == "moved":  # c reads a before the sum, and is added after it
            c = self.c(a)
            total = self.b(x) + a
            return self.silu(c + total).flatten(1)
        if self.wiring == "image":
            return (self.b(x) + x).flatten(1)
        if self.wiring == "alpha":
            return torch.add(self.b(a), a, alpha=2).flatten(1)
        if self.wiring == "number":
            return (self.b(a) + 1).flatten(1)
        if self.wiring == "modules":
            return self.silu(self.b(self.relu(self.c(a)))).flatten(1)
        if self.wiring == "over":
            return self.b(self.c(a)).add_(a).relu_().flatten(1)
        assert self.wiring == "over the other"
        a.add_(self.b(x))
        return a.flatten(1)


@pytest.mark.parametrize(
    ("wiring", "over"),
    [
        ("last", [True]), ("later", [False]), ("view", [False]), ("itself", []),
        ("moved", [False, True]), ("image", [False]), ("alpha", []), ("number", []),
        ("modules", []), ("over", [True]), ("over the other", []),
    ],
)  # fmt: skip
def test_what_is_read_later_is_not_written_over(wiring, over):
    net = Wired(wiring)
    quick = fused.fused(traced(net))
    with torch.no_grad():
        x = X.clone()
        torch.testing.assert_close(quick(x), net(X), rtol=1e-5, atol=1e-5)
    assert torch.equal(x, X)
    assert [part.over for part in parts(quick) if isinstance(part, fused.Sum)] == over


def test_only_plain_convolutions_in_float32_on_cpus(monkeypatch):
    class Own(nn.Conv2d):
        def _conv_forward(self, *words):
            return 2 * super()._conv_forward(*words)

    own = nn.Sequential(Own(3, 3, 3), nn.ReLU())
    around = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1, padding_mode="circular"))
    same = nn.Sequential(nn.Conv2d(3, 3, 3, padding="same"))

    class Tracer(fx.Tracer):
        def is_leaf_module(self, m, name):
            return isinstance(m, nn.Conv2d) or super().is_leaf_module(m, name)

    for net in (own, around, same):
        assert fused.fused(fx.GraphModule(net, Tracer().trace(net))) is None
    plain = nn.Sequential(nn.Conv2d(3, 3, 3))
    assert fused.fused(traced(plain)) is not None
    assert fused.fused(traced(plain.double())) is None
    assert fused.fused(traced(plain.float().to("meta"))) is None
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert fused.fused(traced(nn.Sequential(nn.Conv2d(3, 3, 3)))) is None


@pytest.mark.parametrize("fault", ["wrong", "refuses"])
def test_a_form_that_disagrees_or_fails_is_not_used(monkeypatch, fault):
    class Form(nn.Module):
        def forward(self, x):
            if fault == "refuses":
                raise RuntimeError("shapes")
            return torch.ones(len(x), 5)

    net, settings = built("resnet8"), AttackSettings("autoattack", "linf", "8/255", "digits", 0)
    assert isinstance(searched(net, settings, X, Reporter()), Searched)

    notes: list[str] = []

    class Listening(Reporter):
        def note(self, text: str) -> None:
            notes.append(text)

    monkeypatch.setattr(fused, "fused", lambda copy: Form())
    found = searched(net, settings, X, Listening())
    assert len(notes) == 1
    assert "fused operators" in notes[0]
    assert isinstance(found, fx.GraphModule)
    torch.testing.assert_close(found(X), net(X), rtol=1e-4, atol=1e-4)
