"""Attacking a model: the passes, verdicts, unfinished work, merging of shards."""

__all__ = [
    "arrays",
    "audit",
    "classes",
    "folded",
    "merge",
    "options",
    "partial",
    "passes",
    "remarks",
    "run",
    "settings",
    "stage",
    "verdicts",
]
