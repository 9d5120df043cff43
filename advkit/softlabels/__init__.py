"""A teacher's logits: written once, merged from shards, read in training.

The room is also what `advkit.softlabels` is after its import, where users find the function of
that name: so it can be called, and is the function then.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType

__all__ = ["labelling", "merge", "options", "source", "stage"]


class _Callable(ModuleType):
    def __call__(self, *args: object, **kwargs: object) -> object:
        return import_module("advkit.api").softlabels(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable
