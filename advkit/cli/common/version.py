"""What a figure may depend on beside advkit: for a bug report, or a comparison of machines."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib import metadata

from advkit.config.machine import Machine
from advkit.parallel import ranks

LIBRARIES = ("torchvision", "numpy", "pyautoattack")


def surroundings() -> Iterator[str]:
    """Yield lines: torch and its CUDA, libraries, the device of `auto`, threads, Python, system."""
    import torch

    cuda = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA"
    yield f"torch {torch.__version__} ({cuda})"
    yield ", ".join(f"{name} {_version(name)}" for name in LIBRARIES)
    device = Machine().torch_device()
    name = f" ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else ""
    yield f"device {device}{name}, {ranks.cores()} threads"
    yield f"python {platform.python_version()}, {platform.system()} {platform.machine()}"


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
