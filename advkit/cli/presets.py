"""`advkit presets`: the numbers that --preset and the data sets bring, and their sources."""

from __future__ import annotations

from collections.abc import Iterator

from advkit import method
from advkit.cli.options import Command, Given


def run(given: Given) -> Iterator[str]:
    """Yield the rules as text, in the order in which they apply."""
    for preset in ("default", *method.PRESETS):
        yield f"{preset}\n"
        for rule in method.rules(preset):
            when = ", ".join(f"{key} {'|'.join(map(str, of))}" for key, of in rule.when.items())
            values = ", ".join(f"{key} = {value}" for key, value in rule.values.items())
            values += ", ".join(f"{key} must be given" for key in rule.open)
            yield f"  {when or 'always'}: {values}  # {rule.source}\n"


COMMAND = Command(
    "presets",
    "List the numbers behind --preset and each data set.",
    (),
    run,
    example="advkit presets",
)
