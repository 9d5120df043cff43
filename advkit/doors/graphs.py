"""Nets as graphs: ONNX and torch.export, held against the net itself before anybody gets them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import cast

import torch
from torch import Tensor, nn

from advkit.errors import NumericalError, UsageError, brief
from advkit.runtime import seeding

CLOSE = 1e-5
"""Largest difference of a logit, as a share of the largest logit where that is above 1."""
NEEDED = ("onnx", "onnxscript", "onnxruntime")
"""Packages of the extra `onnx`."""
BATCHES = (1, 5)
"""Sizes that a graph of any batch is tried with; none is the one that it was traced with."""
TRACED = 2


def require_onnx() -> ModuleType:
    """Return onnxruntime, having found all that writing ONNX needs.

    Raises:
        UsageError: a package is missing.
    """
    for name in NEEDED:
        try:
            last = importlib.import_module(name)
        except ImportError:
            raise UsageError(
                f"--to onnx needs the package {name}: python -m pip install {' '.join(NEEDED)}"
            ) from None
    return last


def write_onnx(net: nn.Module, shape: Sequence[int], path: Path) -> None:
    """Write a net as ONNX: `pixels` (B, C, H, W) in [0, 1] to `logits` (B, classes), any B.

    Raises:
        NumericalError: onnxruntime gives other logits than the net.
        UsageError: a package is missing.
    """
    runtime = require_onnx()
    import sys

    with redirect_stdout(sys.stderr):  # the exporter talks
        torch.onnx.export(
            net,
            (_noise(TRACED, shape),),
            str(path),
            input_names=["pixels"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    _judge(
        net,
        shape,
        lambda x: torch.from_numpy(session.run(["logits"], {"pixels": x.numpy()})[0]),
        "onnxruntime",
    )


def write_exported(net: nn.Module, shape: Sequence[int], path: Path) -> None:
    """Write a net as `torch.export` does, for any number of images.

    Raises:
        NumericalError: the program, read back, gives other logits than the net.
    """
    batch = torch.export.Dim("batch")
    program = torch.export.export(net, (_noise(TRACED, shape),), dynamic_shapes=({0: batch},))
    torch.export.save(program, str(path))
    module = torch.export.load(str(path)).module()
    _judge(net, shape, lambda x: cast(Tensor, module(x)), "torch.export")


def _noise(n: int, shape: Sequence[int]) -> Tensor:
    return torch.rand(n, *shape, generator=seeding.generator(0, "export", n))


@torch.no_grad()
def _judge(
    net: nn.Module, shape: Sequence[int], ask: Callable[[Tensor], Tensor], judge: str
) -> None:
    """Compare a graph's logits of random images with the net's own.

    Raises:
        NumericalError: they differ, or the judge cannot run the graph.
    """
    for n in BATCHES:
        x = _noise(n, shape)
        logits = net(x)
        try:
            others = ask(x)
        except Exception as error:  # whatever a runtime says of a graph
            raise NumericalError(f"{judge} cannot run the graph: {brief(error)}") from None
        apart = float((logits - others).abs().max())
        most = CLOSE * max(1.0, float(logits.abs().max()))
        if not apart <= most:
            raise NumericalError(
                f"{judge} gives other logits than the net, by {apart:.2g}: nothing is written"
            )
