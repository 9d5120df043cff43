"""Names of public codes become ours; the tables here are written from those codes' own classes."""

from __future__ import annotations

import re

import pytest
import torch

from advkit import models
from advkit.doors import names
from advkit.errors import MismatchError

FORMS: dict[str, list[tuple[str, str]]] = {
    # DataParallel, torch.compile and a wrapper of one's own, one inside the other
    "wrapped": [(r"^", "module._orig_mod.model.")],
    # torchvision's resnet18 with a stem for small images
    "torchvision": [(r"\.shortcut\.", ".downsample."), (r"^linear\.", "fc.")],
    "torchvision, DataParallel": [
        (r"\.shortcut\.", ".downsample."), (r"^linear\.", "fc."), (r"^", "module."),
    ],
}  # fmt: skip


def net(arch: str = "resnet18", **options: object) -> dict[str, torch.Tensor]:
    statistics = ([0.0] * 3, [1.0] * 3)
    built = models.build(arch, 4, channels=3, statistics=statistics, seed=1, **options)
    return built.state_dict()


def foreign(state: dict[str, torch.Tensor], form: str) -> dict[str, torch.Tensor]:
    """The state dict as others would have saved it: without our buffers, under their names."""
    renamed = {}
    for name, tensor in state.items():
        if name not in ("mean", "std"):
            for pattern, replacement in FORMS[form]:
                name = re.sub(pattern, replacement, name, count=1)
            renamed[name] = tensor.clone()
    return renamed


def same(result: names.Fitted, state: dict[str, torch.Tensor]) -> bool:
    ours = {name: tensor for name, tensor in state.items() if name not in ("mean", "std")}
    return result.tensors.keys() == ours.keys() and all(
        torch.equal(result.tensors[name], tensor) for name, tensor in ours.items()
    )


@pytest.mark.parametrize("form", FORMS)
def test_names_of_residual_nets(form):
    state = net(width=4)
    result = names.fitted(foreign(state, form), state, 3)
    assert result.problem == ""
    assert same(result, state)
    assert result.statistics is None


RB_WRN = {
    "conv1.weight", "block1.layer.0.bn1.weight", "block1.layer.0.convShortcut.weight",
    "block3.layer.0.conv2.weight", "bn1.running_mean", "fc.bias",
}  # fmt: skip
"""Of RobustBench's, TRADES' and AWP's WideResNet."""
DEEPMIND = {
    "init_conv.weight", "layer.0.block.0.batchnorm_0.weight", "layer.0.block.0.conv_0.weight",
    "layer.1.block.0.shortcut.weight", "batchnorm.running_var", "logits.weight",
}  # fmt: skip
"""Of DeepMind's WideResNet, which ADR's code has too."""
DEEPMIND_PREACT = {
    "conv_2d.weight", "layer_0.0.batchnorm_0.bias", "layer_1.0.conv_2d_1.weight",
    "layer_1.0.shortcut.weight", "batchnorm.weight", "logits.bias",
}  # fmt: skip
AWP_PREACT = {
    "conv1.weight", "layer1.0.bn1.weight", "layer2.0.shortcut.0.weight", "bn.weight",
    "linear.weight",
}  # fmt: skip


@pytest.mark.parametrize(
    ("arch", "options", "published"),
    [
        ("wrn-10-2", {}, RB_WRN),
        ("wrn-10-2", {"form": "deepmind"}, DEEPMIND),
        ("preact-resnet18", {"form": "deepmind", "width": 4}, DEEPMIND_PREACT),
        ("preact-resnet18", {"width": 4}, AWP_PREACT),
    ],
)
def test_our_names_are_the_published_ones(arch, options, published):
    state = net(arch, **options)
    assert published <= state.keys()
    assert same(names.fitted(foreign(state, "wrapped"), state, 3), state)


def test_the_block_that_trades_wrn_never_uses_is_left_out():
    state = net("wrn-10-1")
    there = foreign(state, "wrapped")
    extra = {name.replace("block1.", "sub_block1."): tensor for name, tensor in there.items()
             if ".block1." in name}  # fmt: skip
    result = names.fitted({**there, **extra}, state, 3)
    assert same(result, state)
    assert result.remarks == [f"{len(extra)} tensors that no forward pass uses are left out"]


MEAN, STD = [0.5, 0.25, 0.125], [0.75, 0.5, 1.5]


@pytest.mark.parametrize(
    ("layer", "rest"),
    [
        # RobustBench's, in an nn.Sequential of names; one without names; ours, beside the net
        (("normalize.mean", "normalize.std"), "model."),
        (("0.mean", "0.std"), "1.module."),
        (("module.0.mu", "module.0.sigma"), "module.1."),
        (("mean", "std"), ""),
        (("module.mean", "module.std"), "module."),
    ],
)
@pytest.mark.parametrize("shape", [(3,), (3, 1, 1), (1, 3, 1, 1)])
def test_a_normalisation_inside_becomes_mean_and_std(layer, rest, shape):
    state = net("wrn-10-1")
    there = {f"{rest}{name}": tensor for name, tensor in state.items()
             if name not in ("mean", "std")}  # fmt: skip
    values = zip(layer, (MEAN, STD), strict=True)
    there |= {name: torch.tensor(numbers).view(shape) for name, numbers in values}
    result = names.fitted(there, state, 3)
    assert result.statistics == (MEAN, STD)
    assert same(result, state)


def test_one_number_serves_all_channels():
    state = net("wrn-10-1")
    there = foreign(state, "wrapped") | {
        "norm.mean": torch.tensor(0.5),
        "norm.std": torch.tensor(2.0),
    }
    result = names.fitted(there, state, 3)
    assert result.statistics == ([0.5] * 3, [2.0] * 3)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"a.mean": torch.zeros(3), "a.std": torch.ones(3),
          "b.mean": torch.zeros(3), "b.std": torch.ones(3)}, "holds 2 normalisations"),
        ({"a.mean": torch.zeros(4), "a.std": torch.ones(4)}, "has 4 channels, the images have 3"),
        ({"a.mean": torch.zeros(3), "a.std": torch.zeros(3)}, "is not above 0"),
    ],
)  # fmt: skip
def test_normalisations_that_nobody_can_use(more, message):
    state = net("wrn-10-1")
    with pytest.raises(MismatchError, match=message):
        names.fitted({**foreign(state, "wrapped"), **more}, state, 3)


def test_what_does_not_fit_is_counted_and_the_first_are_named():
    state = net("wrn-10-1")
    there = foreign(state, "wrapped")
    prefix = "module._orig_mod.model."
    for name in ("conv1.weight", "bn1.weight", "bn1.bias", "bn1.running_mean"):
        del there[f"{prefix}{name}"]
    there[f"{prefix}head.weight"] = torch.zeros(1)
    there[f"{prefix}fc.bias"] = torch.zeros(10)
    assert names.fitted(there, state, 3).problem == (
        "4 missing (conv1.weight, bn1.weight, bn1.bias, …), 1 unexpected (head.weight), "
        "1 of another shape (fc.bias (10,), not (4,))"
    )


def test_whole_numbers_are_no_weights():
    state = net("wrn-10-1")
    there = foreign(state, "wrapped")
    there["module._orig_mod.model.fc.bias"] = torch.zeros(4, dtype=torch.int8)
    assert names.fitted(there, state, 3).problem == "1 of no real numbers (fc.bias)"


def test_early_files_lack_counters_and_half_precision_is_widened():
    state = net("wrn-10-1")
    there = {name: tensor.half() for name, tensor in foreign(state, "wrapped").items()
             if "num_batches" not in name}  # fmt: skip
    result = names.fitted(there, state, 3)
    assert result.problem == ""
    assert result.remarks == ["float16 weights became float32"]
    weight = result.tensors["fc.weight"]
    assert weight.dtype == torch.float32
    assert torch.equal(weight, state["fc.weight"].half().float())
