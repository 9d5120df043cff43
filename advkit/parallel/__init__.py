"""Several processes that share one piece of work: ranks, shards, and the process group."""

__all__ = ["ranks", "shards", "world"]
