"""Options of the searches."""

from __future__ import annotations

from dataclasses import dataclass

from advkit.errors import UsageError
from advkit.options import StageOptions, declared, parse_budget

CRITERIA = ("robust", "loss")
GRID = "1,2,3,5,8,10,12,15,20,50"


@dataclass(frozen=True, kw_only=True)
class SearchOptions(StageOptions):
    """What `advkit search temperature` looks for."""

    grid: str = declared(GRID, "Search", "temperatures of both steps")
    criterion: str = declared("robust", "Search", "what the second step looks for", CRITERIA)
    threshold: float | None = declared(
        None,
        "Search",
        "clean accuracy that a substitute must keep; the teacher's less 0.05",
        limits="[0, 1]",
    )
    refine: int = declared(2, "Search", "golden-section steps after the grid", limits="[0, 100]")


@dataclass(frozen=True, kw_only=True)
class AdrOptions(StageOptions):
    """How long `advkit search adr` looks: one of the two is needed."""

    trials: int | None = declared(None, "Search", "how many are tried", limits="[1, 10000]")
    budget: str | None = declared(
        None, "Search", "as many as fit, reckoned from the time of plain training: 4h, 90m or 2d"
    )

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UsageError: one is impossible, or both or neither are given.
        """
        super().__post_init__()
        if (self.trials is None) == (self.budget is None):
            raise UsageError("search adr: give --trials N or --budget 4h, one of the two")
        _ = self.seconds

    @property
    def seconds(self) -> float | None:
        """The budget in seconds, if that was given."""
        return None if self.budget is None else parse_budget(self.budget)
