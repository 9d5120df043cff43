"""bfloat16 and compiled passes: what stays float32, what they cost in accuracy, where refused."""

import pytest
import torch
from torch import nn

from advkit import data
from advkit.attacks.pgd import pgd
from advkit.config import resolve
from advkit.errors import UsageError
from advkit.formulas.losses import cross_entropy
from advkit.formulas.threat import Threat
from advkit.runtime import precision
from advkit.runtime.reporting import Reporter
from advkit.training.trainer import Trainer

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", "train")


@pytest.fixture
def bf16(monkeypatch):
    """Let this processor pass for one with bfloat16; its results are the same, only slow."""
    monkeypatch.setattr(precision, "require_bf16", lambda device: None)


def trainer(digits, **flags):
    given = {"data": "digits", "limit": 200, "val_size": 40, "batch_size": 32, "width": 8,
             "eps": "0.1", "attack_steps": 3, "lr": 0.05, **flags}  # fmt: skip
    settings = resolve.resolve((given, "test")).settings
    return Trainer(settings, digits, device=CPU, threads=1, reporter=Reporter())


def outputs(made, count):
    order = made.batches.order(0)
    return [made.learner.learn(made.batches.at(order, 0, i), 0, i) for i in range(count)]


class Watched(nn.Module):
    """A convolution and a linear layer that note what they are computed in."""

    def __init__(self):
        super().__init__()
        self.conv, self.linear = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(4, 3)
        self.seen = []

    def forward(self, x):
        out = self.conv(x)
        logits = self.linear(out.mean((2, 3)))
        self.seen += [x.dtype, out.dtype, logits.dtype]
        return logits


def test_passes_are_bfloat16_and_all_around_them_is_not():
    net = Watched()
    mixed = precision.Mixed(net)
    x = torch.rand(5, 1, 4, 4, requires_grad=True)
    logits = mixed(x)
    assert net.seen == [torch.float32, torch.bfloat16, torch.bfloat16]
    assert logits.dtype == torch.float32
    loss = cross_entropy(logits, torch.arange(5) % 3).sum()
    (gradient,) = torch.autograd.grad(loss, x, retain_graph=True)
    assert (loss.dtype, gradient.dtype) == (torch.float32, torch.float32)
    loss.backward()
    assert {each.grad.dtype for each in net.parameters()} == {torch.float32}
    torch.testing.assert_close(logits, net(x), rtol=0.02, atol=0.01)


def test_perturbation_and_projection_stay_float32():
    net, x = precision.Mixed(Watched()), torch.rand(6, 1, 4, 4)
    eps = 8 / 255
    x_adv = pgd(net, x, torch.zeros(6, dtype=torch.int64), Threat("linf", eps), steps=5)
    assert x_adv.dtype == torch.float32
    reach = float((x_adv - x).abs().max())
    assert 0.9 * eps < reach <= eps + 1e-6  # bfloat16 would miss ε by up to 4e-5 at 0.5 and more


@pytest.mark.parametrize("method", ["adr-awp-wa", "trades"])
def test_a_run_in_bfloat16_follows_the_one_in_float32(digits, bf16, method):
    plain = outputs(trainer(digits, method=method), 4)
    made = trainer(digits, method=method, amp=True)
    mixed = outputs(made, 4)
    for a, b in zip(mixed, plain, strict=True):
        assert a.loss.dtype == torch.float32
        assert float(a.loss.detach()) == pytest.approx(float(b.loss.detach()), rel=0.05)
    assert not torch.equal(mixed[0].loss, plain[0].loss)
    assert {each.dtype for each in made.learner.model.parameters()} == {torch.float32}
    names = made.learner.model.state_dict().keys()
    assert not any(name.startswith("model.") for name in names)  # files keep their plain names


def test_folded_weights_are_cast_once_and_right(bf16):
    from advkit import models
    from advkit.formulas import folding

    net = models.build("small-cnn", 4, channels=1, statistics=((0.5,), (0.5,)), seed=0, width=8)
    net.eval().requires_grad_(False)
    x = torch.rand(4, 1, 8, 8)
    with folding.settled():
        plain, mixed, again = net(x), precision.Mixed(net)(x), net(x)
    assert torch.equal(plain, again)
    torch.testing.assert_close(mixed, plain, rtol=0.05, atol=0.02)


@pytest.mark.parametrize(
    ("device", "capability", "why"),
    [
        ("cuda", (7, 5), r"compute capability 7\.5, bfloat16 needs 8\.0"),
        ("mps", None, "not used on mps"),
        ("cpu", None, "neither AVX512-BF16 nor AMX"),
    ],
)
def test_refused_where_it_does_not_pay(monkeypatch, device, capability, why):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False)
    with pytest.raises(UsageError, match=f"--amp: .*{why}"):
        precision.require_bf16(torch.device(device))


def test_allowed_where_it_pays(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    precision.require_bf16(torch.device("cuda"))
    precision.require_bf16(CPU)


def test_training_asks_before_it_begins(digits, monkeypatch):
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False)
    with pytest.raises(UsageError, match="--amp"):
        trainer(digits, amp=True)


def test_both_are_recorded():
    settings = resolve.resolve(
        ({"data": "digits", "amp": True, "compile": True}, "flag")
    ).settings  # fmt: skip
    assert (settings.described()["amp"], settings.described()["compile"]) == (True, True)
    plain = resolve.resolve(({"data": "digits"}, "flag")).settings
    assert (plain.described()["amp"], plain.described()["compile"]) == (False, False)


def test_without_a_compiler_one_line_says_so(monkeypatch):
    def broken(function):
        def call(*_):
            raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found\nmore\nlines")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(UsageError, match=r"--compile: .*No working C\+\+ compiler") as caught:
        precision.compiled(nn.Linear(2, 2), CPU)
    assert "\n" not in str(caught.value)


# --- TF32 ---


@pytest.mark.parametrize(
    ("device", "capability", "why"),
    [
        ("cuda", (7, 5), r"compute capability 7\.5, TF32 needs 8\.0"),
        ("mps", None, "there is no TF32 on mps"),
        ("cpu", None, "there is no TF32 on cpu"),
    ],
)
def test_tf32_is_refused_where_it_is_not(monkeypatch, device, capability, why):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    with pytest.raises(UsageError, match=f"--tf32: {why}"):
        precision.require_tf32(torch.device(device))


def test_tf32_is_allowed_from_ampere_on(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    precision.require_tf32(torch.device("cuda"))


def switches():
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


@pytest.fixture
def plain_float32():
    """The switches as a stage sets them on CUDA; put back afterwards."""
    before = switches()
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@pytest.mark.parametrize("asked", [True, False])
def test_passes_of_a_step_use_tf32_and_those_of_validation_do_not(
    digits, monkeypatch, plain_float32, asked
):
    monkeypatch.setattr(precision, "require_tf32", lambda device: None)
    made = trainer(digits, tf32=asked, method="adr-awp-wa")
    seen = []
    for net in (made.learner.model, made.learner.average):
        net.register_forward_hook(lambda *_: seen.append(switches()))
    outputs(made, 1)
    assert set(seen) == {(asked, asked)}
    seen.clear()
    made.validation.measure(made.learner.model, lambda: None)
    assert set(seen) == {(False, False)}


def test_the_switches_are_put_back_after_an_error(plain_float32):
    seen = []

    def failing():
        with precision.tf32(True):
            seen.append(switches())
            raise KeyError

    with pytest.raises(KeyError):
        failing()
    assert (seen, switches()) == ([(True, True)], (False, False))


def test_training_asks_for_tf32_before_it_begins(digits):
    with pytest.raises(UsageError, match="--tf32: there is no TF32 on cpu; leave --tf32 out"):
        trainer(digits, tf32=True)


def test_tf32_and_graphs_are_told_where_asked_for():
    plain = resolve.resolve(({"data": "digits", "compile": True}, "flag")).settings.described()
    more = {"tf32": True, "compile_mode": "reduce-overhead"}
    asked = resolve.resolve(({"data": "digits", "compile": True, **more}, "flag")).settings
    assert asked.described() == {**plain, **more}


# --- CUDA graphs ---


def test_graphs_are_for_cuda(digits):
    why = "--compile-mode reduce-overhead: CUDA graphs need a CUDA device, not cpu"
    with pytest.raises(UsageError, match=why):
        trainer(digits, compile=True, compile_mode="reduce-overhead")


def test_a_mode_without_compiling_has_no_effect():
    flags = {"data": "digits", "compile_mode": "reduce-overhead"}
    settings = resolve.resolve((flags, "flag")).settings
    with pytest.raises(UsageError, match="--compile-mode has no effect without --compile"):
        resolve.refuse_idle(flags, settings)
    resolve.refuse_idle(flags, resolve.resolve(({**flags, "compile": True}, "flag")).settings)


class OnePlace(nn.Module):
    """Writes its answer to the same memory each time, as a CUDA graph does."""

    def __init__(self):
        super().__init__()
        self.place = torch.zeros(2, 3)

    def forward(self, x):
        return self.place.copy_(x)


def test_logits_of_a_graph_outlive_its_next_pass():
    net = precision.Graphed(OnePlace())
    first, second = net(torch.ones(2, 3)), net(torch.zeros(2, 3))
    assert torch.equal(first, torch.ones(2, 3))
    assert torch.equal(second, torch.zeros(2, 3))


def test_the_mode_reaches_the_compiler(monkeypatch):
    asked = []

    def compiling(part, **options):
        asked.append(options)
        return part

    monkeypatch.setattr(torch, "compile", compiling)
    monkeypatch.setattr(precision, "_trial", lambda x: x)
    net = nn.Linear(2, 2)
    assert precision.compiled(net, CPU) is net
    monkeypatch.setattr(torch, "ones", lambda *_, device: None)
    graphed = precision.compiled(net, torch.device("cuda"), "reduce-overhead")
    assert isinstance(graphed, precision.Graphed)
    assert graphed.model is net
    assert asked == [{}, {"mode": "default"}, {}, {"mode": "reduce-overhead"}]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_compiled_run_follows_the_plain_one(digits):
    flags = {"method": "adr-awp", "width": 4, "attack_steps": 2}
    try:
        made = trainer(digits, compile=True, **flags)
    except UsageError:
        pytest.skip("no compiler")
    plain = trainer(digits, **flags)
    for a, b in zip(outputs(made, 3), outputs(plain, 3), strict=True):
        assert float(a.loss.detach()) == pytest.approx(float(b.loss.detach()), rel=1e-4)
    for (name, a), b in zip(
        made.learner.model.named_parameters(), plain.learner.model.parameters(), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4, msg=name)
