"""What a run writes besides its metrics: checkpoints, and the state to go on from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import nn

from advkit.artifacts import checkpoint, provenance
from advkit.artifacts.descriptions import Metrics
from advkit.config.settings import Settings
from advkit.errors import InputError, MismatchError, NumericalError
from advkit.images.image_set import ImageSet, Statistics
from advkit.parallel.world import World
from advkit.runtime.reporting import Reporter
from advkit.training.learner import Learner, statistics_of
from advkit.training.run_folder import RunFolder
from advkit.training.state import Progress, pack, unpack


class RunFiles:
    """Describes and writes the artifacts of one run.

    Args:
        settings: of the run.
        images: the training split.
        parents: what the run is made from: data, then teacher or labels, then extra data.
        environment: device and threads.
        world: the processes that share the run; rank 0 alone writes.
        statistics: mean and deviation of the net that the run starts from, if there is one.
    """

    def __init__(
        self,
        settings: Settings,
        images: ImageSet,
        parents: Sequence[Mapping[str, object]],
        environment: Mapping[str, object],
        world: World | None = None,
        statistics: Statistics | None = None,
    ) -> None:
        self.settings, self.images = settings, images
        self.statistics = statistics or statistics_of(settings, images)
        self.world = world or World()
        shared = {} if self.world.alone else {"world": self.world.size}
        self.parents, self.environment = parents, {**environment, **shared}
        self.elastic: list[list[int]] = []

    def describe(self, kind: str, **more: object) -> dict[str, object]:
        """Return the description of an artifact of this run."""
        settings, images = self.settings, self.images
        mean, std = self.statistics
        if self.elastic:
            more = {**more, "elastic": self.elastic}
        return provenance.describe(
            kind,
            config=settings.described(),
            seed=settings.seed,
            parents=self.parents,
            environment=self.environment,
            method=settings.method,
            arch=settings.arch,
            data={"name": settings.data_name, "classes": list(images.classes)},
            model={
                "arch": settings.arch,
                "options": settings.options_of("models"),
                "input_shape": list(images.shape),
                "mean": list(mean),
                "std": list(std),
            },
            **more,
        )

    def write(self, folder: RunFolder, role: str, model: nn.Module, metrics: Metrics) -> None:
        """Write one checkpoint, on rank 0.

        Raises:
            NumericalError: a tensor is not finite.
        """
        if not self.world.leads:
            return
        # What cannot be judged is not written: a checkpoint in place is a net that answers.
        tensors = model.state_dict()
        for name, tensor in tensors.items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise NumericalError(f"{name} is not finite: nothing is written; lower --lr")
        description = self.describe("checkpoint", role=role, metrics=dict(metrics))
        checkpoint.write(folder.checkpoint(role), tensors, description)

    def save(self, folder: RunFolder, learner: Learner, progress: Progress) -> None:
        """Write everything that a resumed run needs, on rank 0; all ranks have to call it.

        Raises:
            NumericalError: the run diverged since the loss was last looked at.
        """
        learner.guard.agree()
        summed = replace(progress, sums=self.world.sum(progress.sums.to(learner.device)))
        if not self.world.leads:
            return
        tensors = pack(learner.model, learner.average, learner.optimizer, summed)
        description = self.describe(
            "state",
            epoch=progress.epoch,
            step=progress.step,
            best=progress.best,
            alarmed=progress.alarmed,
        )
        checkpoint.write(folder.state_file, tensors, description)

    def restore(
        self, folder: RunFolder, learner: Learner, reporter: Reporter, elastic: bool = False
    ) -> Progress:
        """Fill the learner from the saved state and return where the run stood.

        Args:
            folder: of the run.
            learner: is filled.
            reporter: is told what may differ.
            elastic: go on with another number of processes, and record it.

        Raises:
            InputError: the state file is corrupt.
            MismatchError: it was made from other data, or by another number of processes.
        """
        tensors, info = checkpoint.read(folder.state_file, "state")
        begun = [parent["digest"] for parent in info["parents"]]
        now = [parent["digest"] for parent in self.parents]
        if begun != now:
            raise MismatchError(
                f"{folder.path}: training data or soft labels changed since this run began"
            )
        was = info["environment"].get("world", 1)
        if was != self.world.size and not elastic:
            raise MismatchError(
                f"{folder.path}: begun by {was} processes, not {self.world.size}: start as many, "
                "or go on with --resume-elastic"
            )
        self.elastic = list(info.get("elastic", []))
        if was != self.world.size:
            self.elastic.append([info["epoch"], info["step"], was, self.world.size])
        # The number of processes is dealt with above; device and threads only change rounding.
        if {**info["environment"], "world": 0} != {**self.environment, "world": 0}:
            reporter.warn(
                f"resumed on {self.environment}, begun on {info['environment']}: "
                "rounding may differ from an uninterrupted run"
            )
        try:
            sums = unpack(tensors, learner.model, learner.average, learner.optimizer)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"{folder.state_file}: does not fit: {reason}") from None
        if self.world.leads:
            folder.keep_rows(info["epoch"])
        else:
            sums = torch.zeros_like(sums)  # they are added up over ranks
        return Progress(info["epoch"], info["step"], dict(info["best"]), sums, info["alarmed"])
