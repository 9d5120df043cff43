"""What `--label` says, read before anything heavy is imported."""

from __future__ import annotations

from collections.abc import Sequence

from advkit.artifacts.document import one_line
from advkit.errors import UsageError, brief

LONGEST = 200
"""Letters of a label; no legend holds more."""


def parse(texts: Sequence[str]) -> dict[str, str]:
    """Read each `NAME=TEXT`: the name of a run, a method or a file, and what is shown for it.

    >>> parse(["at-s0=AT", "adr=Ours (lambda = 0.9)"])
    {'at-s0': 'AT', 'adr': 'Ours (lambda = 0.9)'}

    Raises:
        UsageError: no such pair, or a name twice.
    """
    labels: dict[str, str] = {}
    for text in texts:
        name, equals, shown = text.partition("=")
        if not name or not equals or not shown.strip():
            raise UsageError(f"--label {brief(text)}: NAME=TEXT, as in at-s0=AT")
        if name in labels:
            raise UsageError(f"--label {brief(name)}: given twice")
        if len(shown) > LONGEST:
            raise UsageError(f"--label {brief(name)}: more than {LONGEST} letters")
        labels[name] = one_line(shown)
    return labels
