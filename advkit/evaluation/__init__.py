"""Attacking a model: the passes, verdicts, unfinished work, merging of shards."""
