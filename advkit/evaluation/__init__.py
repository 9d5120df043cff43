"""Attacking a model: the passes, verdicts, unfinished work, merging of shards."""

__all__ = ["audit", "merge", "partial", "passes", "remarks", "run", "settings", "verdicts"]
