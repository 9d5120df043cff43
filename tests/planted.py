"""A data set and a net whose verdicts are known in closed form, on any machine.

An image is of one grey level v. The net is a `small-cnn` that passes v through (one weight of 1
in the middle of each convolution) and answers with the centre nearest to it:
logit_c = 2 μ_c v − μ_c². All sums have one term that is not 0, so that no order of adding and no
instruction set changes a bit of a logit, and every level is farther from any border, and from any
border ± EPS, than rounding can move it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from advkit.__main__ import main
from advkit.artifacts import checkpoint

CENTRES = (0.25, 0.5, 0.75)
EPS = 0.0625
"""Half the way from a centre to the border of its cell."""
COUNT = 60
SIDE = 8


def levels() -> tuple[np.ndarray, np.ndarray]:
    """Return grey levels (COUNT,) uint8 and labels: a third near a border, a fifth mislabelled."""
    number = np.arange(COUNT)
    near = number % 3 == 0  # 0.0825 from the centre: past the border under attack
    level = np.take(CENTRES, number // 3 % 3) + np.where(near, 0.0825, 0.015)
    return np.rint(255 * level).astype(np.uint8), np.where(
        number % 5 == 4, (number // 3 + 1) % 3, number // 3 % 3
    )


def verdicts(level: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return who is right on clean images and who stands under any linf attack of radius EPS."""

    def answer(v: np.ndarray) -> np.ndarray:
        return np.abs(v[:, None] - np.array(CENTRES)).argmin(1)

    v = level / 255
    clean = answer(v) == labels
    return clean, clean & (answer(v - EPS) == labels) & (answer(v + EPS) == labels)


def plant(folder: Path) -> Path:
    """Write the data set and the checkpoint, FOLDER/run/best.safetensors; return its path.

    The run gives the folder alone: every weight that it learned is replaced.
    """
    level, labels = levels()
    image = np.broadcast_to(level[:, None, None, None], (COUNT, SIDE, SIDE, 1)).copy()
    for name in ("train", "test"):
        np.savez(folder / f"{name}.npz", image=image, label=labels)
    words = ["--arch", "small-cnn", "--width", "2", "--epochs", "1", "--batch-size", "16"]
    out = ["--eps", str(EPS), "-o", str(folder / "run"), "-q"]
    assert main(["train", "--method", "at", "--data", f"npz:{folder}", *words, *out]) == 0
    path = folder / "run" / "best.safetensors"
    tensors, info = checkpoint.read(path)
    checkpoint.write(path, planted(tensors), {k: v for k, v in info.items() if k != "digest"})
    return path


def planted(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a small-cnn's tensors with the weights of the nearest centre."""
    found = {name: torch.zeros_like(value) for name, value in tensors.items()}
    found["std"] += 1
    for number in "123":
        found[f"conv{number}.weight"][0, 0, 1, 1] = 1
        found[f"bn{number}.weight"] += 1
        found[f"bn{number}.running_var"] += 1 - 1e-5  # with BN's own 1e-5 under the root: 1
    found["linear.weight"][:, 0] = 2 * torch.tensor(CENTRES)
    found["linear.bias"] = -torch.tensor(CENTRES).square()
    return found
