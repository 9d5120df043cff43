"""What a run writes besides its metrics: checkpoints, and the state to go on from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import nn

from advkit.artifacts import checkpoint, provenance
from advkit.artifacts.checkpoint import Packed
from advkit.artifacts.descriptions import Beside, Metrics
from advkit.config.settings import Settings
from advkit.errors import InputError, MismatchError, NumericalError
from advkit.images.image_set import ImageSet, Statistics
from advkit.parallel.world import World
from advkit.runtime.reporting import Reporter
from advkit.training import parts
from advkit.training.learner import Learner
from advkit.training.run_folder import RunFolder
from advkit.training.state import Progress, log_of, pack, unpack
from advkit.training.student import statistics_of


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
        self.parts = parts.digests(settings)

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
            parts=self.parts,
            **more,
        )

    def packed(
        self, role: str, model: nn.Module, metrics: Metrics, beside: Beside | None = None
    ) -> Packed:
        """Return a checkpoint as its file will hold it.

        Args:
            role: which one.
            model: its weights.
            metrics: its figures.
            beside: of the last one, what lies beside it.

        Raises:
            NumericalError: a tensor is not finite.
        """
        # What cannot be judged is not written: a checkpoint in place is a net that answers.
        tensors = model.state_dict()
        for name, tensor in tensors.items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise NumericalError(f"{name} is not finite: nothing is written; lower --lr")
        more = {} if beside is None else {"run": beside}
        description = self.describe("checkpoint", role=role, metrics=dict(metrics), **more)
        return checkpoint.pack(tensors, description)

    def save(self, folder: RunFolder, learner: Learner, progress: Progress) -> None:
        """Write everything that a resumed run needs, on rank 0; all ranks have to call it.

        Raises:
            NumericalError: the run diverged since the loss was last looked at.
        """
        learner.guard.agree()
        summed = replace(progress, sums=self.world.sum(progress.sums.to(learner.device)))
        if not self.world.leads:
            return
        tensors = pack(learner.model, learner.average, learner.optimizer, summed, learner.memory)
        description = self.describe(
            "state",
            epoch=progress.epoch,
            step=progress.step,
            best=progress.best,
            alarmed=progress.alarmed,
            written=progress.written,
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
            sums = unpack(
                tensors, learner.model, learner.average, learner.optimizer, learner.memory
            )
            lines = log_of(tensors)
        except (RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"{folder.state_file}: does not fit: {reason}") from None
        progress = Progress(
            info["epoch"],
            info["step"],
            dict(info["best"]),
            sums,
            info["alarmed"],
            dict(info.get("written", {})),
            folder.lines()[: info["epoch"]] if lines is None else lines,
        )
        if self.world.leads:
            self._mend(folder, learner, progress)
        else:
            progress.sums = torch.zeros_like(sums)  # they are added up over ranks
        return progress

    def _mend(self, folder: RunFolder, learner: Learner, progress: Progress) -> None:
        """Make anew what a kill kept from being written after the state; see `manifest.unfinished`.

        At an epoch's end the state has the weights of a checkpoint that was chosen then.
        """
        folder.write_lines(progress.lines)
        models = {"best": learner.model, "best-ema": learner.average}
        for role, metrics in progress.best.items():
            path, model = folder.checkpoint(role), models[role]
            there = checkpoint.read_info(path)["digest"] if path.exists() else None
            if there is None or there != progress.written.get(role, there):
                assert model is not None  # `manifest.unfinished` has seen that it can be made
                there = checkpoint.put(path, self.packed(role, model, metrics))
            progress.written[role] = there
