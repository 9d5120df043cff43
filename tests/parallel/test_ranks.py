"""Who a process is: read from the environment, nonsense refused."""

import pytest
import torch

from advkit.config.machine import Machine, torch_device
from advkit.errors import UsageError
from advkit.parallel import ranks

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


@pytest.fixture
def environment(monkeypatch):
    """Set the four variables in order; None leaves one out."""

    def setup(*values):
        for name, value in zip(NAMES, values, strict=True):
            monkeypatch.delenv(name, raising=False)
            if value is not None:
                monkeypatch.setenv(name, str(value))

    setup(None, None, None, None)
    return setup


def found():
    return ranks.rank(), ranks.world(), ranks.local_rank(), ranks.local_world()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((None, None, None, None), (0, 1, 0, 1)),
        ((5, 8, 1, 4), (5, 8, 1, 4)),
        ((1, 2, None, None), (1, 2, 1, 2)),
        ((0, 1, 0, 1), (0, 1, 0, 1)),
    ],
)
def test_what_torchrun_says(environment, values, expected):
    environment(*values)
    assert found() == expected


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ((None, 2, None, None), "RANK is not set"),
        ((2, 2, None, None), "RANK=2 is not below WORLD_SIZE=2"),
        ((1, None, None, None), "RANK=1 is not below WORLD_SIZE=1"),
        ((0, 0, None, None), "WORLD_SIZE=0"),
        ((0, "two", None, None), "WORLD_SIZE=two"),
        ((-1, 2, None, None), "RANK=-1"),
        (("", 2, None, None), "RANK="),
        ((3, 4, 2, 2), "LOCAL_RANK=2 is not below LOCAL_WORLD_SIZE=2"),
    ],
)
def test_nonsense(environment, values, what):
    environment(*values)
    with pytest.raises(UsageError, match=what):
        found()


@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_each_process_has_a_device_of_its_own(environment, monkeypatch, name):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    environment(5, 8, 1, 4)
    assert str(torch_device(name)) == "cuda:1"
    assert str(torch_device("cuda:0")) == "cuda:0"
    assert str(torch_device("cpu")) == "cpu"
    environment(6, 8, 2, 4)
    with pytest.raises(UsageError, match="cuda:2"):
        torch_device(name)
    environment(None, None, None, None)
    assert str(torch_device(name)) == "cuda"


def test_processes_share_the_cores_of_their_machine(environment, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(10)), raising=False)
    assert Machine().threads_for("resnet18") == 10
    for local, expected in ((4, 2), (16, 1)):
        environment(0, 32, 0, local)
        assert Machine().threads_for("resnet18") == expected
    assert Machine().threads_for("small-cnn") == 1
    assert Machine(threads=7).threads_for("resnet18") == 7
