"""Several processes that share one piece of work: ranks, shards, and the process group."""
