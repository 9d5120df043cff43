"""Training: the run, one step, selection, state and the run folder."""

__all__ = [
    "binding",
    "learner",
    "manifest",
    "metrics_log",
    "options",
    "parts",
    "run",
    "run_folder",
    "selection",
    "sources",
    "stage",
    "student",
    "trainer",
]
