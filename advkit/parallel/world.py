"""Many processes, one run: what torchrun started, and the little that its ranks agree on.

The engine is PyTorch's: torchrun starts the ranks, DistributedDataParallel averages gradients.
Everything random is drawn for the global batch, and a rank takes its rows of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from advkit.errors import AdvkitError, Elsewhere
from advkit.parallel import ranks

PATIENCE = timedelta(minutes=10)
"""How long a rank waits for the others; rank 0 writes checkpoints meanwhile."""
FAILED = 1000
"""Added to the exit code of rank 0's failure, so that one number also carries answers."""


@dataclass(frozen=True)
class World:
    """The ranks of a run: this one's number, and how many there are.

    `control` is the group in which ranks agree without a GPU having to wait; None is the default.
    """

    rank: int = 0
    size: int = 1
    control: dist.ProcessGroup | None = None

    @property
    def alone(self) -> bool:
        """Whether there is one process only."""
        return self.size == 1

    @property
    def leads(self) -> bool:
        """Whether this rank writes and speaks."""
        return self.rank == 0

    def wrapped(self, net: nn.Module) -> nn.Module:
        """Return the net whose backward pass averages gradients over ranks.

        Buffers are not broadcast: that would change them between the two forward passes of
        TRADES, and BN's are agreed on after the step (`mean`).
        """
        return net if self.alone else DistributedDataParallel(net, broadcast_buffers=False)

    @torch.no_grad()
    def mean(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors by their mean over ranks, in one collective for each dtype."""
        if self.alone:
            return
        groups: dict[torch.dtype, list[Tensor]] = {}
        for tensor in tensors:
            groups.setdefault(tensor.dtype, []).append(tensor)
        for group in groups.values():
            # One collective for all: a message costs more than its bytes.
            flat = torch.cat([tensor.flatten() for tensor in group])
            dist.all_reduce(flat)
            parts = torch.split(flat.div_(self.size), [tensor.numel() for tensor in group])
            for tensor, part in zip(group, parts, strict=True):
                tensor.copy_(part.view_as(tensor))

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum over ranks."""
        total = tensor.clone()
        if not self.alone:
            dist.all_reduce(total)
        return total

    @torch.no_grad()
    def gathered(self, tensor: Tensor) -> Tensor:
        """Return the rows of all ranks, in their order; each has as many, of one shape."""
        if self.alone:
            return tensor.detach()
        own = tensor.detach().contiguous()
        parts = [torch.empty_like(own) for _ in range(self.size)]
        dist.all_gather(parts, own)
        return torch.cat(parts)

    def most(self, value: int) -> int:
        """Return the largest value of any rank."""
        if self.alone:
            return value
        most = torch.tensor(value)
        dist.all_reduce(most, dist.ReduceOp.MAX, group=self.control)
        return int(most)

    def led(self, work: Callable[[], bool]) -> bool:
        """Do something on rank 0 alone and tell the others how it went.

        Raises:
            AdvkitError: on rank 0, as the work does.
            Elsewhere: on the others, when it failed there.
        """
        if self.alone:
            return work()
        answer = torch.tensor(0)
        failure: BaseException | None = None
        if self.leads:
            try:
                answer += int(work())
            except BaseException as error:
                failure = error
                answer += FAILED + (error.code if isinstance(error, AdvkitError) else 1)
        dist.broadcast(answer, 0, group=self.control)
        if failure is not None:
            raise failure
        if int(answer) >= FAILED:
            raise Elsewhere(int(answer) - FAILED)
        return bool(answer)


def start(device: torch.device) -> World:
    """Join the ranks that torchrun started, if it did."""
    if ranks.world() == 1:
        return World()
    if not dist.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    control = None
    if device.type == "cuda":
        # new_group gives a number to ranks outside the group; here all ranks are in it.
        group = dist.new_group(timeout=PATIENCE, backend="gloo")
        control = cast("dist.ProcessGroup", group)
    return World(dist.get_rank(), dist.get_world_size(), control)


def stop() -> None:
    """Leave the ranks."""
    if dist.is_initialized():
        dist.destroy_process_group()
