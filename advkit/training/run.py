"""Training: a loop over epochs that can stop and go on at any step."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import torch

from advkit import data
from advkit.config.methods import BASES
from advkit.config.resolve import Resolved
from advkit.config.settings import Settings
from advkit.errors import UsageError
from advkit.parallel.world import World
from advkit.runtime.reporting import Reporter
from advkit.training import manifest
from advkit.training.mirrors import Mirrors
from advkit.training.run_folder import RunFolder
from advkit.training.trainer import Trainer


def train(
    resolved: Resolved,
    folder: RunFolder,
    *,
    device: torch.device,
    threads: int,
    data_root: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    elastic: bool = False,
    reporter: Reporter | None = None,
    world: World | None = None,
    loggers: Sequence[str] = (),
    until: int | None = None,
) -> bool:
    """Train one run in its folder; return False if it was already done.

    In a world of several processes all of them call this; rank 0 holds the folder. With `until`
    it stops after so many epochs of the run, as if a signal had come there: `resume` goes on.

    Raises:
        UsageError, InputError, MismatchError, NumericalError, StorageError, BusyError, Stopped:
            see `errors`; whatever happens, files under their final names are whole.
    """
    # Every process looks by itself, before the one that leads writes anything.
    resolved = resolved if overwrite else folder.as_begun(resolved)
    settings, reporter = resolved.settings, reporter or Reporter()
    world = world or World()
    torch.set_num_threads(threads)
    stack = ExitStack()  # holds the folder, in the process that leads

    def mirrored() -> Mirrors:
        return Mirrors(loggers, folder, settings.flat(), reporter)

    # Rank 0 alone looks at the folder, and the others hear what it decided.
    def opened() -> bool:
        if folder.done and not overwrite:  # to find a run done a look is enough: no lock
            folder.require_same(resolved)
            manifest.require(folder)
            folder.tidy()
            if loggers:  # a form that was not asked before is written now
                with folder.held():
                    mirrored().close()
            return False
        stack.enter_context(folder.held())
        folder.require_fit(resolved, resume=resume, overwrite=overwrite)
        if not overwrite:
            manifest.require(folder)
        return not folder.done or overwrite

    def begun() -> bool:
        folder.begin(resolved, overwrite=overwrite)
        going_on = folder.state_file.exists()
        if not going_on:
            folder.write_lines(())
        return going_on

    with stack:
        if not world.led(opened):
            return False
        own = settings.options_of("data")
        images = data.load(settings.data, "train", root=data_root, reporter=reporter, **own)
        data.require_same_classes(
            settings.data,
            images,
            root=data_root,
            reporter=reporter,
            test_fraction=own.get("test_fraction"),
        )
        if images.held_out and resolved.typed("val_size"):
            raise UsageError("--val-size has no effect: the data set has a validation split, val/")
        trainer = Trainer(
            settings, images, device=device, threads=threads, reporter=reporter, world=world
        )
        if _made_for_soft(settings) and not resolved.typed("labels"):
            reporter.note(
                f"--objective {settings.objective} is made for a teacher's soft labels, and these "
                f"are one-hot: --method {settings.objective} with --teacher or --soft-labels, or "
                "--labels onehot to say so"
            )
        # The folder is touched only now: data and options that do not fit leave it as it was.
        if world.led(begun):
            trainer.restore(folder, elastic)
        if world.leads:
            trainer.mirrors = mirrored()
        # Also of a run that is stopped: what it told is to be on disk.
        stack.callback(trainer.mirrors.close)
        trainer.fit(folder, until)
        if trainer.progress.epoch == settings.epochs:
            trainer.finish(folder)
        world.led(lambda: True)  # nobody leaves before the last file is in place
    return True


def _made_for_soft(settings: Settings) -> bool:
    """Whether hard labels go to an objective that its method gives soft ones."""
    named = [labels for objective, labels in BASES.values() if objective == settings.objective]
    return settings.labels == "onehot" and named == ["soft"]
