"""Options of the search for a temperature."""

from __future__ import annotations

from dataclasses import dataclass

from advkit.options import StageOptions, declared

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
