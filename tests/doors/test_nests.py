"""Where a state dict lies in what training scripts save."""

from __future__ import annotations

import pytest
import torch

from advkit.doors.nests import choose
from advkit.errors import InputError, UsageError

NET, OTHER = {"fc.weight": torch.ones(2)}, {"fc.weight": torch.zeros(2)}


@pytest.mark.parametrize(
    ("loaded", "key", "place"),
    [
        (NET, None, ""),
        ({**NET, "epoch": 3}, None, ""),
        ({"state_dict": NET, "epoch": torch.tensor(3), "optimizer": {"state": OTHER}}, None,
         "state_dict"),
        ({"model": {"state_dict": NET, "step": 1}}, None, "model.state_dict"),
        ({"net": NET, "acc": 0.5}, None, "net"),
        ({"model": OTHER, "ema": NET}, "ema", "ema"),
        ({"student": {"weights": NET}}, "student.weights", "student.weights"),
        ({"a.b": NET}, "a.b", "a.b"),
        ({"ema.fc.weight": NET["fc.weight"], "fc.weight": OTHER["fc.weight"]}, "ema", "ema"),
        ({"student": {"state_dict": NET}}, "student", "student"),
    ],
)  # fmt: skip
def test_the_state_dict_is_found(loaded, key, place):
    where, state = choose(loaded, key)
    assert (where, list(state)) == (place, ["fc.weight"])
    assert torch.equal(state["fc.weight"], NET["fc.weight"])


@pytest.mark.parametrize(
    ("loaded", "key", "error", "message"),
    [
        ({"model": NET, "ema": OTHER}, None, UsageError, "several state dicts: --key model or ema"),
        ({"student": NET, "teacher": OTHER}, None, UsageError, "--key student or teacher"),
        ({"model": NET}, "emma", UsageError, "no state dict at --key emma; there is: model"),
        ({"state_dict": NET, "state_dict_ema": OTHER}, None, UsageError,
         "--key state_dict or state_dict_ema"),
        ({"epoch": 3}, None, InputError, "holds no tensors"),
        ({}, None, InputError, "holds no tensors"),
        ([NET], None, InputError, "holds a list"),
        (NET["fc.weight"], None, InputError, "holds a Tensor"),
    ],
)  # fmt: skip
def test_what_cannot_be_chosen_is_told(loaded, key, error, message):
    with pytest.raises(error, match=message):
        choose(loaded, key)


def test_a_file_that_holds_itself_ends():
    loaded: dict[str, object] = {}
    loaded["model"] = loaded
    with pytest.raises(InputError, match="holds no tensors"):
        choose(loaded, None)


def test_a_normalisation_beside_the_nest_is_the_nets():
    pair = {"mean": torch.full((1, 3, 1, 1), 0.5), "std": torch.full((1, 3, 1, 1), 0.25)}
    assert choose({"state_dict": NET, **pair}, None)[1].keys() == {"fc.weight", "mean", "std"}
    assert choose({"state_dict": NET, "mean": pair["mean"]}, None)[1].keys() == {"fc.weight"}
