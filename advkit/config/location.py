"""Where the data of a checkpoint lie: descriptions hold no path, records and runs do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

from advkit import registry
from advkit.artifacts.descriptions import Data
from advkit.config import stored
from advkit.errors import UsageError

UNKNOWN = "unknown"
"""Name of the data of a net that was imported without any."""


def location(path: Path, info: Mapping[str, object], named: str | None) -> str:
    """Find a checkpoint's data: what was named, else what the run's configuration says.

    Checkpoints hold no path, so that equal work gives equal bytes wherever it is done.

    Args:
        path: of the checkpoint or labels file.
        info: its description.
        named: NAME or NAME:PATH of an option or of a record, if there is one.

    Raises:
        UsageError: nobody says, and the net was imported without its data.
    """
    if named:
        return named
    name = cast(Data, info["data"])["name"]
    if name == UNKNOWN:
        raise UsageError(f"{path}: imported without its data set: give --data")
    # The run folder's configuration has the path, unless the checkpoint was moved away from it.
    beside = path.parent / "config.toml"
    if beside.exists():
        place = str(stored.read(beside).get("data", name))
        if registry.split_path(place)[0] == name:
            return place
    return name


def elsewhere(
    path: Path, info: Mapping[str, object], text: str, root: str | Path | None
) -> bool | None:
    """Say whether a data set lies elsewhere than that of a checkpoint's run, None if nobody knows.

    A set that was moved is not known to lie elsewhere: its old place is gone.

    Args:
        path: of the checkpoint.
        info: its description.
        text: NAME or NAME:PATH of a set of the same reader.
        root: where data sets lie.
    """
    here = registry.split_path(text)[1] or root
    there = registry.split_path(location(path, info, None))[1]
    if here is None and there is None:
        return False
    if here is None or there is None or not Path(there).exists():
        return None
    return Path(here).resolve() != Path(there).resolve()
