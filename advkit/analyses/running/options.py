"""Options that all analyses have, and those of analyses that ask a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from advkit.analyses.drawing.style import Frame
from advkit.config.machine import DIALOGUE, Machine, Output, require_name
from advkit.errors import UsageError, unknown
from advkit.evaluation.options import ExampleOptions, ThreatOptions
from advkit.evaluation.settings import BATCH_SIZE
from advkit.options import BATCHES, SEEDS, TEXTS, declared
from advkit.registry import Part


@dataclass(frozen=True, kw_only=True)
class ProbeOptions(ThreatOptions, ExampleOptions, Machine):
    """What is asked of a model."""

    seed: int = declared(0, "Attack", "seed of every draw", limits=SEEDS)
    batch_size: int = declared(BATCH_SIZE, "Machine", "examples in a batch", limits=BATCHES)


@dataclass(frozen=True, kw_only=True)
class AnalyzeOptions(Output):
    """Options of `advkit analyze WHAT`; `parts` are the analysis' own that were given."""

    plot: str | None = declared(None, DIALOGUE, "draw into FILE.png, .svg or .pdf")
    title: str | None = declared(None, DIALOGUE, "title of the picture")
    label: tuple[str, ...] = declared(
        (), DIALOGUE, "NAME=TEXT: show a run, a method or a file as TEXT; repeat it", kind=TEXTS
    )
    size: str | None = declared(
        None, DIALOGUE, "of the picture: column, page or WxH in inches, or as in 8x6cm"
    )
    overlay: bool = declared(False, DIALOGUE, "several nets share the panels of the picture")
    parts: Mapping[str, Any] = field(default_factory=dict)
    probe: ProbeOptions = field(default_factory=ProbeOptions)

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UsageError: no file can have the name of an output, or no picture such a size.
        """
        super().__post_init__()
        require_name("--plot", self.plot)
        self.frame()
        if self.label:
            # Names of runs read artifacts, hence torch, which help must not wait for.
            from advkit.analyses.gathering import naming

            naming.parse(self.label)

    def frame(self) -> Frame:
        """Return what is asked of the picture."""
        return Frame.of(self.title, self.size, overlay=self.overlay)

    def require_fit(self, part: Part) -> None:
        """Check the analysis' own options.

        Raises:
            UsageError: it has no such option, or a value is impossible.
        """
        known = {option.name: option for option in part.options}
        for name, value in self.parts.items():
            if name not in known:
                raise unknown("option", name, known)
            option = known[name]
            option.check(value)
            if option.choices and value not in option.choices:
                raise unknown(option.flag, value, option.choices)
        for name, words in part.constants.get("WORDS", {}).items():
            if name not in self.parts:
                continue
            for word in map(str.strip, str(self.parts[name]).split(",")):
                if word not in words:
                    raise unknown(f"--{name.replace('_', '-')}", word, words)
        if self.plot and not part.constants.get("PICTURE", True):
            raise UsageError(f"--plot: analyze {part.name} has no picture")
        if self.overlay and not part.constants.get("OVERLAY"):
            raise UsageError(f"--overlay: nets share no panels in analyze {part.name}")
