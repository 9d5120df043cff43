"""What a CUDA graph asks of a step: no waiting, the same shapes each time, nothing on the CPU."""

import pytest
import torch

from advkit.config.methods import BASES
from tests.training import _capture
from tests.training._capture import META, Recorder

MORE = {"sat": {"memory_from": 1}, "te": {"ramp": "1:2", "epochs": 3}}
"""What lets the memory's term begin before the last epoch."""
MEMORIES = {
    "sat": {"ge", "_to_copy", "index", "index_put_"},
    "te": {"ge", "_to_copy", "index", "index_put_"},
}
"""Operators on places of examples, which are on the CPU; a graph of the whole step would want
them on the device."""
METHODS = (*BASES, "adr-awp-wa", "trades-adr-awp")


@pytest.fixture(autouse=True)
def streams(monkeypatch):
    _capture.on_meta(monkeypatch)


def steps(learner, batches):
    """Two steps after the first, which makes the optimizer's momenta."""
    return [_capture.step_of(learner, batches, step) for step in (1, 2, 3)][1:]


@pytest.mark.parametrize("method", METHODS)
def test_a_step_can_be_captured(method):
    """`.item()`, `bool()` and copies to the CPU raise there by themselves."""
    first, second = steps(*_capture.learner_of(method, **MORE.get(method, {})))
    assert len(first.seen) > 100
    assert first.waits == []
    assert first.host_names == MEMORIES.get(method, set())
    assert first.differs(second) is None


@pytest.mark.parametrize(
    "more",
    [
        {"attack_steps": 1, "train_attack": "n-fgsm"},
        {"norm": "l2", "eps": "0.5"},
        {"norm": "l1", "eps": "2"},
        {"grad_align": 0.2},
        {"clip_grad_norm": 1.0},
        {"attack_bn": "train", "logging_pass": True},
        {"attack_start": "normal", "clip_start": False},
    ],
    ids=lambda more: ",".join(more),
)
def test_so_can_steps_with_other_options(more):
    """Not AdamW: its fused kernel, which CUDA has, is not there on the meta device."""
    first, second = steps(*_capture.learner_of("at", **more))
    assert (first.waits, first.host_names) == ([], set())
    assert first.differs(second) is None


def test_a_step_keeps_its_weights_in_place():
    """A graph writes and reads where they were when it was captured."""
    learner, batches = _capture.learner_of("adr-awp-wa")
    nets = (learner.model, learner.average)
    before = [[id(each) for each in net.state_dict(keep_vars=True).values()] for net in nets]
    steps(learner, batches)
    assert before == [
        [id(each) for each in net.state_dict(keep_vars=True).values()] for net in nets
    ]


# --- planted breaches: each way to break the conditions is seen ---


def breached(monkeypatch, breach):
    """Two steps of a method whose inner loss does something forbidden first."""
    learner, batches = _capture.learner_of("at")
    inner = learner.parts.inner

    def planted(logits, given, **more):
        breach(logits)
        return inner(logits, given, **more)

    object.__setattr__(learner.parts, "inner", planted)
    return steps(learner, batches)


@pytest.mark.parametrize(
    "breach",
    [
        lambda z: z.sum().item(),
        lambda z: bool((z > 0).any()),
        lambda z: z.argmax(1).nonzero(),
        lambda z: z[z > 0],
        lambda z: z.detach().cpu(),
        lambda z: z.detach().to("cpu", non_blocking=True),
        lambda z: z.detach().numpy(),
    ],
    ids=["item", "bool", "nonzero", "mask", "cpu", "to", "numpy"],
)
def test_waiting_raises_or_is_told(monkeypatch, breach):
    try:
        first, _ = breached(monkeypatch, breach)
    except (RuntimeError, NotImplementedError, TypeError):
        return
    assert first.waits or first.host_names


@pytest.mark.parametrize(
    "breach",
    [
        lambda z: z + torch.ones(10).to(META, non_blocking=True),
        lambda z: z * torch.tensor(2.0),
        lambda z: torch.rand(3),
    ],
    ids=["sent", "number", "drawn"],
)
def test_a_tensor_on_the_cpu_is_told(monkeypatch, breach):
    first, _ = breached(monkeypatch, breach)
    assert first.host_names


def growing():
    sizes = iter(range(1, 100))
    return lambda z: z.new_zeros(next(sizes))


def branching():
    turns = iter(range(100))
    return lambda z: z.exp() if next(turns) < 4 else z.sin()


@pytest.mark.parametrize("breach", [growing, branching])
def test_steps_that_differ_are_told(monkeypatch, breach):
    first, second = breached(monkeypatch, breach())
    assert first.differs(second) is not None


def test_an_operator_more_or_less_is_told():
    recorders = [Recorder(), Recorder()]
    for count, recorder in enumerate(recorders, 1):
        with recorder:
            for _ in range(count):
                torch.ones(2, device=META).exp()
    assert recorders[0].differs(recorders[1]) == (2, 4)
