"""In which settings later inputs of a call differ from the first, where each is looked at alone.

They stand beside each other all the same: in one terminal, in one picture.
"""

from __future__ import annotations

from pathlib import Path

from advkit.analyses.gathering import protocol
from advkit.analyses.gathering.entries import entries_of, told_apart
from advkit.analyses.gathering.protocol import Setting
from advkit.analyses.gathering.rows import run_name
from advkit.analyses.gathering.trained import Trained
from advkit.analyses.probing.probe import Probe
from advkit.artifacts import provenance
from advkit.artifacts.hdf5 import Logits
from advkit.artifacts.soft_labels import SoftLabels

Source = Logits | SoftLabels | Trained | Probe


class First:
    """The first input of a call, with which the later ones are compared."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def beside(self, other: Source) -> tuple[dict[str, list[object]], str]:
        """Return setting → the values of both where they differ, and the same in a line."""
        if isinstance(self.source, Logits) and isinstance(other, Logits):
            entries = entries_of([self.source, other])
            differing = protocol.differences([protocol.evaluated(entry) for entry in entries])
        else:
            first, second = (_protocol(source) for source in (self.source, other))
            sides = zip((first, second), _data(self.source, other), strict=True)
            first, second = (own | protocol.plainly({"data": data}) for own, data in sides)
            if type(self.source) is not type(other):  # labels beside logits: what both have
                shared = first.keys() & second.keys()
                first, second = ({k: own[k] for k in own if k in shared} for own in (first, second))
            differing = protocol.differences([first, second])
        names = [_name(self.source), _name(other)]
        if names[0] == names[1]:
            names = [self.source.path, other.path]
        return protocol.plain(differing), protocol.words(differing, names)


def _name(source: Source) -> str:
    return f"{run_name(source.path)} {Path(source.path).name.split('.')[0]}"


def _data(*sources: Source) -> list[object]:
    """Return the data sets' names, with a digest where one name stands for two."""
    digests = [provenance.data_digest(x.info["parents"]) for x in sources]
    return told_apart([(x.info["data"]["name"], d) for x, d in zip(sources, digests, strict=True)])


def _protocol(source: Source) -> dict[str, Setting]:
    """Return the settings of a checkpoint's training, or of the work that made a labels file."""
    if isinstance(source, Logits):
        (entry,) = entries_of([source])
        return protocol.evaluated(entry)
    if isinstance(source, SoftLabels):
        config = source.info["config"]
        made = {"views": config["views"], "dtype": config["dtype"], "top_k": config["top_k"]}
        return protocol.plainly({"arch": source.info["arch"], **made, "n": len(source.labels)})
    info = source.info
    known = {"arch": info["arch"], "training": protocol.RECORDED}
    found = protocol.plainly(known) | protocol.training({**info["config"]})
    if isinstance(source, Probe):
        asked = {"norm": source.threat.norm, "eps": source.threat.eps, "n": len(source.positions)}
        found |= protocol.plainly(asked)
    return found
