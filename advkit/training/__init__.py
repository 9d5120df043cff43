"""Training: the run, one step, selection, state and the run folder."""
