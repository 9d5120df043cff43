"""The weights that a run starts from, where `--init` names a checkpoint (fine-tuning)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from advkit import models
from advkit.artifacts import provenance
from advkit.artifacts.descriptions import Checkpoint
from advkit.config.settings import Settings
from advkit.errors import MismatchError
from advkit.images.image_set import ImageSet, Statistics, identity
from advkit.runtime.reporting import Reporter
from advkit.softlabels.labelling import SPLIT
from advkit.training.binding import require_digest

USE = "init"
"""What such a parent is to a run; other checkpoints among the parents are teachers."""


@dataclass(frozen=True)
class Initial:
    """The state dict of a checkpoint, and what describes it."""

    tensors: Mapping[str, Tensor]
    info: Checkpoint

    @property
    def statistics(self) -> Statistics:
        """Mean and deviation that the weights were trained behind; the run keeps them."""
        model = self.info["model"]
        return tuple(model["mean"]), tuple(model["std"])

    @property
    def parent(self) -> dict[str, object]:
        """It as a parent of the run."""
        return {**provenance.parent(self.info), "use": USE}


def load(settings: Settings, images: ImageSet) -> Initial | None:
    """Read the checkpoint of `--init`; None where there is none.

    Raises:
        InputError: it is missing, corrupt or of another kind.
        MismatchError: its net, classes, channels or normalisation are not the run's, or it is not
            the one that the configuration names.
        NumericalError: a weight is not finite.
    """
    if settings.init is None:
        return None
    net, info = models.load_finite(settings.init)
    require_digest(settings.init_digest, "weights", info["digest"], settings.init)
    initial = Initial(net.state_dict(), info)
    described, plain = info["model"], identity(images.shape[0])
    pairs = {
        "arch": (described["arch"], settings.arch),
        "options": (dict(described["options"]), settings.options_of("models")),
        "channels": (described["input_shape"][0], images.shape[0]),
        "classes": (list(info["data"]["classes"]), list(images.classes)),
    }
    for what, (its, ours) in pairs.items():
        if its != ours:
            raise MismatchError(
                f"{settings.init}: {what} {_brief(its)}, the run has {_brief(ours)}"
            )
    if not settings.normalise and initial.statistics != plain:
        raise MismatchError(f"{settings.init}: its net normalises: leave out --no-normalise")
    return initial


def tell_split(initial: Initial, settings: Settings, reporter: Reporter) -> None:
    """Warn where the net has seen images that are to choose the best epoch.

    That is so on the data that it was trained on, where another part of them was set aside.
    """
    info = initial.info
    if info.get("imported") or info["data"]["name"] != settings.data_name:
        return
    config = info["config"]
    own = {name: config.get(name) for name in SPLIT}
    other = [name for name in SPLIT if own[name] != getattr(settings, name)]
    if other:
        flags = {name: f"--{name.replace('_', '-')}" for name in other}
        words = [f"no {flags[x]}" if own[x] is None else f"{flags[x]} {own[x]}" for x in other]
        told = ", ".join(words)
        reporter.warn(
            f"--init: its net set other images aside ({told}): it may have seen those that choose "
            "the best epoch"
        )


def _brief(value: object) -> str:
    text = f"{len(value)} of them" if isinstance(value, list) and len(value) > 10 else str(value)
    return text if len(text) < 160 else f"{text[:159]}…"
