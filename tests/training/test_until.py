"""A run that stops after some of its epochs is the beginning of the whole run."""

import pytest
import torch

from advkit.config.resolve import resolve
from advkit.training.run import train
from advkit.training.run_folder import RunFolder

TINY = {
    "data": "digits", "method": "adr", "limit": 60, "epochs": 4, "batch_size": 16, "width": 2,
    "attack_steps": 1, "eps": "0.1", "lr_schedule": "cosine",
}  # fmt: skip


def trained(folder, until=None):
    return train(
        resolve((TINY, "flag")), folder, device=torch.device("cpu"), threads=1, resume=True,
        until=until,
    )  # fmt: skip


def told(folder):
    times = ("seconds", "images_per_second")
    return [{k: v for k, v in row.items() if k not in times} for row in folder.rows()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = RunFolder(tmp_path_factory.mktemp("until") / "whole")
    assert trained(folder)
    return folder


def test_epoch_by_epoch_it_is_the_same_run(whole, tmp_path):
    """The learning rate, τ and λ are those of four epochs from the first one on."""
    folder = RunFolder(tmp_path / "run")
    for until in (1, 3, 3, 2):
        assert trained(folder, until)
        assert not folder.done
        assert folder.state_file.exists()
        assert told(folder) == told(whole)[: max(until, len(told(folder)))]
    assert len(told(folder)) == 3  # a run never goes back
    assert trained(folder, 9)
    assert folder.done
    for role in ("best", "final", "final-ema"):
        assert folder.checkpoint(role).read_bytes() == whole.checkpoint(role).read_bytes()
    assert not trained(folder, 1)
