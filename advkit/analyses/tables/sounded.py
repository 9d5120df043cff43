"""Which alarms rang in the training of the runs of a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from advkit.analyses.gathering.entries import Entry
from advkit.analyses.gathering.rows import run_name


def sounded(entries: Iterable[Entry]) -> dict[str, list[str]]:
    """Return run → the alarms that rang up to one of its checkpoints, in their fixed order.

    Logits files of earlier versions say nothing of them.
    """
    rung: dict[str, list[str]] = {}
    for entry in entries:
        for name in entry.logits.info.get("alarms", ()):
            own = rung.setdefault(run_name(entry.path), [])
            own += [name] if name not in own else []
    return rung


def words(rung: Mapping[str, Sequence[str]]) -> list[str]:
    """Return a note for each run.

    >>> words({"at-s1": ["overfitting_alarm", "margin_alarm"]})
    ['alarms in the training of at-s1: overfitting, margin']
    """
    return [
        f"alarms in the training of {run}: "
        + ", ".join(name.removesuffix("_alarm") for name in names)
        for run, names in rung.items()
    ]
