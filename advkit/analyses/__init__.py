"""Analyses: numbers, a table and pictures from files, without a model.

Each part declares the artifact kinds it takes in `KINDS`, and `COMPARES = True` if it looks at
all its inputs at once (otherwise it gets them one by one). `PROBES = True` asks for a checkpoint's
model and data, a `probing.probe.Probe` each.
"""

__all__ = ["drawing", "gathering", "probing", "running"]
