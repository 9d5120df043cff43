"""Other people's parts are imported here, and only once they are used."""

from __future__ import annotations

import importlib
import sys
import types
from types import ModuleType

from advkit.errors import AdvkitError, UsageError
from advkit.registry import places
from advkit.registry.places import Place
from advkit.registry.reading import Part


def imported(part: Part) -> ModuleType:
    """Import a part that is not advkit's own.

    Raises:
        UsageError: whatever stops it, with file and line.
    """
    writes = sys.dont_write_bytecode
    try:
        if part.place.kind != places.PACKAGE:
            # Compiled files are told apart by size and second: an edit may look like none.
            sys.dont_write_bytecode = True
            _rooms(part.place)
        return importlib.import_module(part.module)
    except AdvkitError:
        raise
    except Exception as error:
        raise UsageError(
            f"{part.path} cannot be imported: {places.cause(error, part.path)}"
        ) from error
    finally:
        sys.dont_write_bytecode = writes


def _rooms(place: Place) -> None:
    """Have the folder stand for a package, so that files of it may import each other."""
    wanted = {place.module: [] if place.kind == places.FILE else [str(place.root)]}
    if place.kind == places.FILE:
        wanted[f"{place.module}.models"] = [str(place.root.parent)]
    for name, folders in wanted.items():
        if name not in sys.modules:
            package = types.ModuleType(name)
            package.__path__ = folders
            sys.modules[name] = package
