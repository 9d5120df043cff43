"""How code runs, no formula: random streams, module modes, memory, precision, signals, reading."""

__all__ = [
    "counting",
    "memory",
    "modes",
    "precision",
    "progress",
    "reading",
    "reporting",
    "seeding",
    "signals",
    "tempered",
]
