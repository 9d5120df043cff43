"""What a distributed run would do: each rank's share, steps and traffic, by arithmetic alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from advkit import data, models, registry
from advkit.config.settings import Settings
from advkit.errors import UsageError
from advkit.images.image_set import identity
from advkit.images.split import validation_size
from advkit.runtime import modes
from advkit.weights import awp

FLOAT, FLAG = 4, 8
"""Bytes of a float32, and of the flag by which ranks agree to stop."""


def parse_ranks(text: str) -> tuple[int, int]:
    """Read `NODESxRANKS`.

    >>> parse_ranks("8x4")
    (8, 4)

    Raises:
        UsageError: not two counts from 1 on.
    """
    nodes, _, ranks = text.partition("x")
    if not (nodes.isdecimal() and ranks.isdecimal() and int(nodes) and int(ranks)):
        raise UsageError(f"--plan {text}: NODESxRANKS, for example 8x4")
    return int(nodes), int(ranks)


def plan(settings: Settings, nodes: int, ranks: int, root: str | None) -> Iterator[dict[str, Any]]:
    """Yield a row for each rank, then one for the whole.

    `rows` are a rank's places in every global batch, `sent_bytes_per_step` what it sends in a ring
    all-reduce: 2·(W − 1)/W of the gradients, BN statistics, AWP's direction, and a flag. Attacks
    and labels send nothing.

    Args:
        settings: of the run; --batch-size is that of all ranks together.
        nodes: machines.
        ranks: processes on each.
        root: where data sets lie, for those whose size is not published.

    Raises:
        UsageError: the batch cannot be shared evenly.
    """
    world = nodes * ranks
    facts = _facts(settings, root)
    extra = round(settings.batch_size * settings.extra_fraction) if settings.extra_data else 0
    own = settings.batch_size - extra
    if own % world or extra % world:
        raise UsageError(f"--batch-size {settings.batch_size} cannot be shared by {world} ranks")
    held = validation_size(settings.val_size, facts["train"])
    training = min(settings.limit or facts["train"], facts["train"]) - held
    steps, share = training // own, own // world
    payload = _payload(settings, facts)
    sent = round(2 * (world - 1) / world * payload)
    for rank in range(world):
        yield {
            "rank": rank,
            "node": rank // ranks,
            "rows": [rank * share, (rank + 1) * share],
            "examples_per_step": share + extra // world,
            "steps_per_epoch": steps,
            "examples_per_epoch": steps * share,
            "sent_bytes_per_step": sent,
            "sent_bytes_per_epoch": steps * sent,
        }
    yield {
        "ranks": world,
        "training_examples": training,
        "validation_examples": held,
        "examples_per_epoch": steps * own,
        "left_out_per_epoch": training - steps * own,
        "steps_per_epoch": steps,
        "payload_bytes_per_step": payload,
        "sent_bytes_per_epoch": steps * sent * world,
        "attack_collectives": 0,
    }


def _facts(settings: Settings, root: str | None) -> dict[str, Any]:
    """Return the published sizes of a data set, or those of the files."""
    published = registry.part("data", settings.data_name).constants.get("PUBLISHED")
    if published:
        return dict(published)
    images = data.load(settings.data, "train", root=root, **settings.options_of("data"))
    return {
        "train": len(images.labels), "classes": len(images.classes), "channels": images.shape[0],
    }  # fmt: skip


def _payload(settings: Settings, facts: dict[str, Any]) -> int:
    """Return the bytes that the ranks average in a step."""
    with torch.device("meta"):
        net = models.build(
            settings.arch,
            facts["classes"],
            channels=facts["channels"],
            statistics=identity(facts["channels"]),
            seed=0,
            **settings.options_of("models"),
        )
    gradients = sum(each.numel() for each in net.parameters())
    statistics = sum(
        each.numel() for norm in modes.batch_norms(net)
        for each in (norm.running_mean, norm.running_var) if each is not None
    )  # fmt: skip
    direction = 0
    if settings.awp > 0:
        direction = sum(each.numel() for each in awp.chosen(net, settings.awp_form).values())
    return FLOAT * (gradients + statistics + direction) + FLAG
