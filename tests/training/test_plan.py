"""The dry run of a distributed training adds up."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
import torch

from advkit.config import resolve
from advkit.errors import UsageError
from advkit.images.batches import Batches
from advkit.images.image_set import Images
from advkit.training.plan import parse_ranks, plan

LTD = {
    "data": "imagenet", "method": "ltd", "arch": "resnet50", "temperature": 1.0,
}  # fmt: skip


def rows(nodes, ranks, preset="paper", **flags):
    base = LTD if "method" not in flags else {}
    settings = resolve.resolve(({**base, **flags}, "flag"), preset=preset).settings
    *each, whole = plan(settings, nodes, ranks, None)
    return each, whole


def test_imagenet_on_eight_nodes_adds_up():
    each, whole = rows(8, 8)
    assert len(each) == whole["ranks"] == 64
    # 1,281,167 images less 1,024 for validation, 320 a step: 4,000 steps, 143 left out
    assert (whole["training_examples"], whole["steps_per_epoch"]) == (1_280_143, 4_000)
    assert whole["left_out_per_epoch"] == 143
    assert {row["steps_per_epoch"] for row in each} == {4_000}
    assert (
        sum(row["examples_per_epoch"] for row in each) == whole["examples_per_epoch"] == 1_280_000
    )
    assert [row["rows"] for row in each] == [[5 * rank, 5 * rank + 5] for rank in range(64)]
    assert [row["node"] for row in each] == [rank // 8 for rank in range(64)]
    # ResNet-50: 25,557,032 parameters and 26,560 BN channels with two statistics each, a flag
    assert whole["payload_bytes_per_step"] == 4 * (25_557_032 + 2 * 26_560) + 8
    assert each[0]["sent_bytes_per_step"] == round(126 / 64 * whole["payload_bytes_per_step"])
    assert whole["attack_collectives"] == 0


@dataclass(frozen=True)
class Counted(Images):
    """A million labels and one pixel each."""


def test_the_ranks_of_the_plan_see_every_example_once_an_epoch():
    """The batches that training itself would take, at full size: disjoint, and all there."""
    count, world, size = 1_280_143, 64, 320
    images = Counted(
        "x", "train", torch.zeros(1, 1, 1, 1, dtype=torch.uint8).expand(count, 1, 1, 1),
        torch.zeros(count, dtype=torch.int64), ("a",), 0, False,
    )  # fmt: skip
    ranks = [
        Batches(images, torch.arange(count), size, 0, torch.device("cpu"), rank=r, world=world)
        for r in range(world)
    ]
    assert {len(each) for each in ranks} == {4_000}
    order = ranks[0].order(3)
    assert len(order) == len(order.unique()) == 1_280_000
    assert torch.equal(order, ranks[-1].order(3))
    for step in (0, 1, 1_999, 3_999):
        shares = [each.chosen(order, 3, step)[0] for each in ranks]
        assert {len(share) for share in shares} == {5}
        assert torch.equal(torch.cat(shares), order[step * size : (step + 1) * size])


def test_extra_data_and_awp_are_counted():
    flags = {"data": "cifar100", "method": "adr-awp", "arch": "preact-resnet18",
             "extra_data": "ddpm.npz"}  # fmt: skip
    each, whole = rows(1, 4, **flags)
    assert [row["examples_per_step"] for row in each] == [256] * 4  # 64 real and 192 extra
    assert whole["steps_per_epoch"] == (50_000 - 1_024) // 256
    without, plain = rows(1, 4, preset=None, data="cifar100", method="adr", arch="preact-resnet18")
    assert whole["payload_bytes_per_step"] > 1.9 * plain["payload_bytes_per_step"]
    assert len(without) == 4


def test_one_process_sends_nothing():
    each, _ = rows(1, 1)
    assert each[0]["sent_bytes_per_step"] == 0


@pytest.mark.parametrize("text", ["", "8", "8x", "x8", "0x4", "8x-1", "axb", "8x8x8"])
def test_other_plans_are_refused(text):
    with pytest.raises(UsageError, match="NODESxRANKS"):
        parse_ranks(text)


def test_a_batch_that_cannot_be_shared_is_refused():
    with pytest.raises(UsageError, match="cannot be shared by 48 ranks"):
        rows(8, 6)


def test_the_plan_needs_neither_data_nor_labels(cli):
    done = cli("train", "--data", "imagenet", "--method", "ltd", "--arch", "resnet50",
               "--preset", "paper", "--temperature", "1", "--plan", "2x4")  # fmt: skip
    assert done.code == 0, done.err
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert len(lines) == 9
    assert lines[-1]["ranks"] == 8
