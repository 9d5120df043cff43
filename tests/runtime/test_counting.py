"""What a person hears of an attack inside one batch: how many passes its net has made."""

import itertools

import pytest
import torch
from torch import nn

from advkit.runtime import counting
from tests.heard import Heard


@pytest.fixture
def slow(monkeypatch):
    """A clock of which every look takes 0.15 s: of two looks one is due."""
    ticks = itertools.count()
    monkeypatch.setattr(counting.time, "monotonic", lambda: 0.15 * next(ticks))


def test_passes_of_all_nets_are_counted_and_now_and_then_told(slow):
    first, second, heard = nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2)), Heard()
    x = torch.zeros(1, 2)
    with counting.counted([first, second], "transfer", heard):
        for _ in range(2):
            first(x)
            second(x)
    passes = [("transfer pass", 0, 2), ("transfer pass", 0, 4)]
    assert heard.inner == [("transfer", 0, 0), *passes, ("", 0, 0)]


def test_nothing_is_left_behind_whatever_happens(slow):
    net, heard = nn.Linear(2, 2), Heard()
    with pytest.raises(ValueError, match="broken"), counting.counted([net], "pgd", heard):
        raise ValueError("broken")
    assert heard.inner[-1] == ("", 0, 0)
    told = len(heard.inner)
    net(torch.zeros(1, 2))
    assert len(heard.inner) == told
    assert not net._forward_pre_hooks


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")
def test_a_net_that_takes_no_hooks_is_asked_all_the_same(slow):
    x, heard, plain = torch.zeros(1, 2), Heard(), nn.Linear(2, 2)
    traced = torch.jit.trace(nn.Linear(2, 2), x)
    with counting.counted([traced, plain], "pgd", heard):
        assert traced(x).shape == (1, 2)
        plain(x), plain(x)
    assert heard.inner == [("pgd", 0, 0), ("pgd pass", 0, 2), ("", 0, 0)]
