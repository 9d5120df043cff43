"""Training: the run, one step, selection, state and the run folder."""

__all__ = ["learner", "run", "run_folder", "selection", "trainer"]
