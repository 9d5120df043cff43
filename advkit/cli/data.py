"""`advkit data`: what data sets there are, what one holds, and fetching one when asked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from advkit import registry
from advkit.artifacts.record import Record, make
from advkit.cli.common import options
from advkit.cli.common.options import Call, Command, shown
from advkit.errors import AdvkitError, InputError, MismatchError, UsageError
from advkit.options import SIDES, StageOptions, declared

if TYPE_CHECKING:
    from advkit.images.image_set import ImageSet


@dataclass(frozen=True, kw_only=True)
class Place(StageOptions):
    """Which images of a data set, and where they lie."""

    data_root: str | None = declared(None, "Data", "where data sets lie (env ADVKIT_DATA)")
    image_size: int | None = declared(
        None, "Data", "side of the images: folder, imagenet", limits=SIDES
    )
    test_fraction: float | None = declared(
        None, "Data", "of folder:DIR without test/: share of each class", limits="(0, 1)"
    )
    skip_broken: bool = declared(
        False, "Data", "of folder:DIR: leave out images that cannot be read"
    )


def listed(call: Call) -> Iterator[str]:
    """Yield a line for each data set."""
    for part in registry.parts("data").values():
        yield f"{part.name}\t{part.help}\n"


def informed(call: Call) -> Iterator[Record]:
    """Yield a record for each split of one data set, once both are read.

    Raises:
        AdvkitError: what is wrong with either, of both in one line.
    """
    from advkit import data

    place, name = call.build(Place), _name(call)
    records: list[Record] = []
    problems: list[AdvkitError] = []
    for split in ("train", "test"):
        try:
            images = data.load(
                name,
                split,
                root=place.data_root,
                reporter=call.reporter("data info"),
                image_size=place.image_size,
                test_fraction=place.test_fraction,
                skip_broken=place.skip_broken or None,
            )
        except (UsageError, InputError, MismatchError) as error:
            problems.append(error)
        else:
            records.append(_record(registry.split_path(name)[0], images))
    if problems:
        told = dict.fromkeys(str(problem) for problem in problems)
        raise type(problems[0])("; ".join(told))
    yield from records


def _record(name: str, images: ImageSet) -> Record:
    # A test set has neither normalisation nor augmentation of its own.
    own: dict[str, object] = {}
    if images.split == "train":
        mean, std = images.normalisation
        own = {"mean": mean, "std": std, "augmentation": images.augmentation}
    if images.missing:
        own["missing"] = images.missing
    return make(
        "data",
        None,
        images.fingerprint,
        data=name,
        split=images.split,
        n=len(images.labels),
        shape=images.shape,
        classes=len(images.classes),
        **own,
    )


def fetched(call: Call) -> Iterator[str]:
    """Download one data set into the data root."""
    name, path = registry.split_path(_name(call))
    module = registry.load("data", name)
    if not hasattr(module, "fetch"):
        files = registry.part("data", name).constants.get("FILES", True)
        why = "bring its files yourself" if files else "it needs no files"
        raise UsageError(f"{name} cannot be fetched: {why}")
    where = path or call.build(Place).data_root
    if not where:
        raise UsageError("say where to put it: --data-root DIR")
    root = Path(where)
    root.mkdir(parents=True, exist_ok=True)
    module.fetch(root)
    yield f"{root}\n"


def _name(call: Call) -> str:
    if not call.files:
        names = ", ".join(registry.parts("data"))
        raise UsageError(f"name a data set: {names}")
    return call.files[0]


COMMANDS = (
    Command("list", "List the data sets.", (), listed, example="advkit data list"),
    Command(
        "info",
        "Load a data set and say what it holds.",
        shown(Place),
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


def commands() -> tuple[Command, ...]:
    """Return the commands of the group."""
    return COMMANDS
