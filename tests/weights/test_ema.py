"""The weight average against a loop by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from advkit.errors import UsageError
from advkit.weights.ema import Ema


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 2))


def steps(student, count):
    """Train a student for real, so that parameters, BN statistics and counters all move."""
    optimizer = torch.optim.SGD(student.parameters(), lr=0.01)
    for _ in range(count):
        optimizer.zero_grad()
        student(torch.rand(8, 1, 4, 4)).square().sum().backward()
        optimizer.step()
        yield


@pytest.mark.parametrize("decay", [0.0, 0.9, 0.995])
def test_average_by_hand(decay):
    student = net()
    ema = Ema(student, decay)
    hand = {name: value.double().numpy().copy() for name, value in student.state_dict().items()}
    for count, _ in enumerate(steps(student, 5), 1):
        ema.update(student, count)
        for name, value in student.state_dict().items():
            hand[name] = decay * hand[name] + (1 - decay) * value.double().numpy()
    found = ema.model.state_dict()
    assert found.keys() == hand.keys()
    for name in hand.keys() - {"1.num_batches_tracked"}:
        np.testing.assert_allclose(found[name], hand[name], rtol=1e-5, atol=1e-6, err_msg=name)
    assert not np.allclose(found["1.running_mean"], 0), "BN statistics are averaged too"


def test_counter_is_copied():
    student = net()
    ema = Ema(student, 0.9)
    for count, _ in enumerate(steps(student, 3), 1):
        ema.update(student, count)
    assert int(ema.model.state_dict()["1.num_batches_tracked"]) == 3


def test_nothing_is_shared():
    student = net()
    ema = Ema(student, 0.9)
    ema.update(student, 1)
    places = {value.data_ptr() for value in student.state_dict().values()}
    assert places.isdisjoint(value.data_ptr() for value in ema.model.state_dict().values())


def test_update_leaves_the_student_alone():
    student = net()
    ema = Ema(student, 0.5)
    for _ in steps(student, 1):
        before = {name: value.clone() for name, value in student.state_dict().items()}
        ema.update(student, 1)
    assert student.training
    for name, value in student.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(parameter.requires_grad for parameter in student.parameters())


def test_teacher_is_in_eval_mode():
    ema = Ema(net().train(), 0.9)
    x = torch.rand(6, 1, 4, 4)
    together, alone = ema.model(x), ema.model(x[:1])
    assert torch.allclose(together[:1], alone, atol=1e-6), "no batch statistics"
    assert not together.requires_grad
    assert not any(module.training for module in ema.model.modules())
    assert not any(parameter.requires_grad for parameter in ema.model.parameters())
    assert int(ema.model.state_dict()["1.num_batches_tracked"]) == 0


@pytest.mark.parametrize("decay", [-0.1, 1.0, 1.5, float("nan")])
def test_decay_outside_0_1(decay):
    with pytest.raises(UsageError, match="ema-decay"):
        Ema(net(), decay)


@pytest.mark.parametrize("own_norms", [True, False])
def test_warm_up_by_hand(own_norms):
    """The student's copy through the second iteration's, then γ is 1/10, 2/11, 3/12, ... to 0.2."""
    student = net()
    ema = Ema(student, 0.2, warmup=3, own_norms=own_norms)
    hand, wanted = {}, [0, 0, 1 / 10, 2 / 11, 0.2, 0.2]
    for count, _ in enumerate(steps(student, 6), 1):
        ema.update(student, count)
        decay = wanted[count - 1]
        for name, value in student.state_dict().items():
            now = value.double().numpy().copy()
            kept = name.startswith("1.running") and not own_norms
            hand[name] = now if kept or not decay else decay * hand[name] + (1 - decay) * now
    found = ema.model.state_dict()
    for name in hand.keys() - {"1.num_batches_tracked"}:
        np.testing.assert_allclose(found[name], hand[name], rtol=1e-5, atol=1e-6, err_msg=name)
    same = torch.equal(found["1.running_mean"], student.state_dict()["1.running_mean"])
    assert same != own_norms
