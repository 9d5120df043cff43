"""Values that the chosen part itself must know, and spans of epochs."""

from __future__ import annotations

import pytest

from advkit import models, registry
from advkit.config.resolve import resolve
from advkit.errors import UsageError

OBJECTIVE = '''"""Cross-entropy with words of its own."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from advkit.objectives import Given


def inner(logits: Tensor, given: Given, *, inner: Literal["foo", "bar"] = "foo") -> Tensor:
    """Return cross-entropy, (B,)."""
    return cross_entropy(logits, given.y, reduction="none")


def outer(
    model: nn.Module,
    x: Tensor,
    x_adv: Tensor,
    given: Given,
    *,
    inner: Literal["foo", "bar"] = "foo",
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return its mean.

    Args:
        inner: what.
    """
    logits = model(x_adv)
    return cross_entropy(logits, given.y), {"adversarial": logits}
'''
LAZY = '''"""A net that knows no sizes yet."""

from __future__ import annotations

from torch import nn

from advkit.models import Statistics


def build(classes: int, *, channels: int, statistics: Statistics) -> nn.Module:
    """Build it."""
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(classes), nn.LazyBatchNorm1d())
'''


@pytest.fixture
def own(tmp_path):
    """An objective `aown` whose `inner` has other words than TRADES'; first by the alphabet."""
    (tmp_path / "objectives").mkdir()
    (tmp_path / "objectives" / "aown.py").write_text(OBJECTIVE)
    with registry.using(str(tmp_path)):
        yield


def chosen(**flags):
    return resolve(({"data": "digits", **flags}, "flag")).settings


@pytest.mark.parametrize(("objective", "word"), [("aown", "bar"), ("trades", "kl")])
def test_a_shared_option_has_the_words_of_all_its_parts(own, objective, word):
    assert chosen(objective=objective, inner=word).options_of("objectives")["inner"] == word


@pytest.mark.parametrize(("objective", "word"), [("trades", "bar"), ("aown", "kl")])
def test_a_word_that_the_chosen_part_does_not_know_is_refused(own, objective, word):
    with pytest.raises(UsageError, match=f"--inner {word!r}"):
        chosen(objective=objective, inner=word)


@pytest.mark.parametrize(("span", "fine"), [("3:1", False), ("3:3", True), ("1:3", True)])
def test_a_ramp_goes_forward(span, fine):
    if fine:
        assert chosen(method="te", ramp=span).options_of("objectives")["ramp"] == span
        return
    with pytest.raises(UsageError, match="--ramp 3:1: epoch 1 comes before epoch 3"):
        chosen(method="te", ramp=span)


def test_a_net_of_lazy_layers_names_its_file(tmp_path):
    path = tmp_path / "lazy.py"
    path.write_text(LAZY)
    with registry.using():
        arch = registry.arch_named(f"{path}:build")
        with pytest.raises(UsageError, match=r"lazy\.py: layer 1 \(LazyLinear\)"):
            models.build(arch, 10, channels=1, statistics=((0.5,), (0.5,)), seed=0)
