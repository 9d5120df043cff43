"""`advkit data`: what data sets there are, what one holds, and fetching one when asked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from advkit import registry
from advkit.cli.common import options
from advkit.cli.common.options import Command, Given
from advkit.errors import UsageError
from advkit.options import Option

IMAGE_SIZE = Option("image_size", "int", None, "side of the images: folder, imagenet", "Data")


def listed(given: Given) -> Iterator[str]:
    """Yield a line for each data set."""
    for part in registry.parts("data").values():
        yield f"{part.name}\t{part.help}\n"


def informed(given: Given) -> Iterator[str]:
    """Yield a line for each split of one data set."""
    from advkit import data

    for split in ("train", "test"):
        images = data.load(
            _name(given), split, root=given["data_root"], image_size=given["image_size"]
        )
        channels, height, width = images.shape
        cells = [split, f"{len(images.labels)} images {channels}x{height}x{width}"]
        cells.append(f"{len(images.classes)} classes")
        if split == "train":  # a test set has neither of its own
            mean, std = images.normalisation
            cells += [f"mean {mean} std {std}", images.augmentation]
        yield "\t".join([*cells, images.fingerprint]) + "\n"


def fetched(given: Given) -> Iterator[str]:
    """Download one data set into the data root."""
    name, path = registry.split_path(_name(given))
    module = registry.load("data", name)
    if not hasattr(module, "fetch"):
        files = registry.part("data", name).constants.get("FILES", True)
        why = "bring its files yourself" if files else "it needs no files"
        raise UsageError(f"{name} cannot be fetched: {why}")
    root = Path(path or given["data_root"] or "")
    if not (path or given["data_root"]):
        raise UsageError("say where to put it: --data-root DIR")
    root.mkdir(parents=True, exist_ok=True)
    module.fetch(root)
    yield f"{root}\n"


def _name(given: Given) -> str:
    if not given["files"]:
        names = ", ".join(registry.parts("data"))
        raise UsageError(f"name a data set: {names}")
    return str(given["files"])


COMMANDS = (
    Command("list", "List the data sets.", (), listed, example="advkit data list"),
    Command(
        "info",
        "Load a data set and say what it holds.",
        (options.DATA_ROOT, IMAGE_SIZE),
        informed,
        argument="NAME[:PATH]",
        single=True,
        example="advkit data info digits",
    ),
    Command(
        "fetch",
        "Download a data set; nothing else ever downloads.",
        (options.DATA_ROOT,),
        fetched,
        argument="NAME[:PATH]",
        single=True,
        example="advkit data fetch cifar10 --data-root data",
    ),
)
