"""In which settings the lines of a table differ, for its record and its notes."""

from __future__ import annotations

from collections.abc import Sequence

from advkit.analyses.gathering import protocol
from advkit.analyses.gathering.entries import shown
from advkit.analyses.gathering.groups import Group
from advkit.analyses.gathering.protocol import RENAMED, UNRECORDED
from advkit.analyses.tables.sheets import called, method_of

HEADED = ("data", "arch")
"""Settings that tables have columns or captions for."""
CONTEST = ("attack", "norm", "eps", "steps")
"""What the text has columns for beside them; a document has a table for each attack."""


class Differing:
    """The settings in which lines differ, their methods' own aside."""

    def __init__(self, groups: Sequence[Group]) -> None:
        self._groups = groups
        self._lines = [line for line, group in enumerate(groups) for _ in group.entries]
        self._found = [protocol.evaluated(entry) for group in groups for entry in group.entries]
        self._settings = protocol.differences(self._found)

    def plain(self) -> dict[str, list[object]]:
        """Return setting → its distinct values, for the record."""
        return protocol.plain(self._settings)

    def of_line(self, line: int) -> dict[str, object]:
        """Return the values of one line, of the settings in which lines differ."""
        places = [place for place, own in enumerate(self._lines) if own == line]
        return protocol.own(self._settings, places)

    def notes(self, columns: Sequence[str] = HEADED, *, printed: bool = True) -> list[str]:
        """Return what stands below the table: what differs, and that nothing is bold across it.

        Args:
            columns: settings that the table has columns or captions for.
            printed: methods are called as papers print them, else as `--method` takes them.
        """
        names = [self._name(self._groups[line], printed) for line in self._lines]
        told = protocol.words(self._settings, names, columns)
        notes = [f"not the same in all lines: {told}; nothing is bold across it"] if told else []
        unknown = [found["training"].value == UNRECORDED for found in self._found]
        if len(self._groups) > 1 and all(unknown):
            notes.append("how these runs were trained is not recorded: nothing is bold")
        return notes

    def _name(self, group: Group, printed: bool) -> str:
        """Return method and settings in a few words, without what the note itself tells."""
        labels = group.labels
        own = {
            name: value
            for name, value in labels.settings.items()
            if RENAMED.get(name, name) not in self._settings
        }
        method = called(group) if printed else method_of(labels)
        return ", ".join(words for words in (method, shown(own)) if words)
