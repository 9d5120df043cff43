"""`advkit presets`: the numbers that --preset and the data sets bring, and their sources."""

from __future__ import annotations

from collections.abc import Iterator

from advkit.cli import listing
from advkit.cli.common.options import Call, Command
from advkit.config import methods
from advkit.errors import unknown


def run(call: Call) -> Iterator[str]:
    """Yield the rules as text, in the order in which they apply.

    Raises:
        UsageError: no such preset.
    """
    presets = ("default", *methods.PRESETS)
    wanted = call.files[0] if call.files and call.files[0] else None
    if wanted not in (None, *presets):
        raise unknown("preset", str(wanted), presets)
    for preset in [wanted] if wanted else presets:
        yield f"{preset}\n"
        for rule in methods.rules(preset):
            when = ", ".join(f"{key} {'|'.join(map(str, of))}" for key, of in rule.when.items())
            values = ", ".join(f"{key} = {value}" for key, value in rule.values.items())
            values += ", ".join(f"{key} must be given" for key in rule.open)
            yield f"  # {rule.source}\n  {when or 'always'}\n      {values}\n"


COMMAND = Command(
    "presets",
    listing.COMMANDS["presets"].help,
    (),
    run,
    argument="[default|paper|repo|ltd]",
    single=True,
    example="advkit presets paper",
)
