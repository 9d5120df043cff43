"""What pictures are drawn from."""

import pytest
import torch

from advkit.artifacts.hdf5 import Logits


@pytest.fixture
def logits():
    """Forty examples of five classes, clean and attacked."""
    rng = torch.Generator().manual_seed(0)
    clean, adversarial = torch.randn(2, 40, 5, generator=rng)
    labels = torch.randint(0, 5, (40,), generator=rng)
    return Logits(torch.arange(40), labels, clean, {}, adversarial, path="it.h5")
