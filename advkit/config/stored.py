"""Configuration files: what people write, and what runs keep.

A run of an earlier version names fewer options than there are now. What it did then is not what
is done by default today, so it is filled in here.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path

from advkit.config.settings import BY_MACHINE, CROP_FLIP, UNTOLD, Settings, own_options
from advkit.errors import InputError, brief
from advkit.runtime import reading

DOTS = 4000
"""Dots beyond which a file is no configuration; ours have some hundred."""
SINCE: Mapping[str, object] = {
    "augment": CROP_FLIP,
    "bn_passes": "ca",
    "clip_start": True,
    "last_batch": "drop",
    "logging_pass": False,
}
"""Options that the first runs' configurations do not name → what those runs did."""


def read(path: Path) -> dict[str, object]:
    """Read a configuration file; of an earlier version's run it also says what was not asked then.

    Raises:
        InputError: missing, not TOML, a pipe, or far too large.
    """
    values = _parsed(path)
    return {**_unasked(values), **values}


def unasked(path: Path) -> dict[str, object]:
    """Return the options that a configuration file is too old to name, as its run had them.

    What a machine decides is the run's own as well, on whatever machine it goes on.

    Raises:
        InputError: missing or not TOML.
    """
    values = _parsed(path)
    own = {name: values.get(name, getattr(Settings, name)) for name in BY_MACHINE}
    return {**_unasked(values), **own}


def _unasked(values: Mapping[str, object]) -> dict[str, object]:
    # A run's configuration names every option that has a value; what people write names a few.
    named = {name for name in own_options() if getattr(Settings, name) is not None}
    if not named - SINCE.keys() - UNTOLD.keys() <= values.keys():
        return {}
    absent = {key: value for key, value in SINCE.items() if key not in values}
    if values["objective"] != "trades":
        absent.pop("bn_passes", None)
    return absent


def _parsed(path: Path) -> dict[str, object]:
    try:
        text = reading.text(path, reading.SETTINGS)
        if text.count(".") > DOTS:  # each part of a dotted key costs as much as all before it
            raise ValueError(f"more than {DOTS} dots")
        return tomllib.loads(text)
    except FileNotFoundError:
        raise InputError(f"{path}: no such configuration file") from None
    except RecursionError:
        raise InputError(f"{path}: not a configuration: lists within lists without end") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a TOML file: {brief(error)}") from None
