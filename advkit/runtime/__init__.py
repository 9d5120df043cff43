"""How code runs, no formula: random streams, module modes, memory, precision, signals."""

__all__ = [
    "memory",
    "modes",
    "precision",
    "progress",
    "reporting",
    "seeding",
    "signals",
    "tempered",
]
