"""A reporter that keeps what it is told."""

from advkit.runtime.reporting import Reporter


class Heard(Reporter):
    """Keeps what goes on inside, as (what, total, done), and how much work is begun and done."""

    def __init__(self) -> None:
        self.inner: list[tuple[str, int, int]] = []
        self.total = 0
        self.units: list[int] = []

    def begin(self, what: str, total: int, done: int = 0) -> None:
        self.total = total

    def advance(self, units: int = 1, **figures: object) -> None:
        self.units.append(units)

    def inside(self, what: str, total: int = 0, done: int = 0) -> None:
        self.inner.append((what, total, done))
