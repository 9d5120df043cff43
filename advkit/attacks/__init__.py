"""Attacks: start, loss, step and projection over a `Threat`.

`attack` is the evaluation role: it returns the worst case it found for each example. `pgd.pgd`
is the training role: it returns the last iterate.
"""

__all__ = ["pgd", "upstream"]
