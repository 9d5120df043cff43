"""Formulas alone: losses, schedules, threat models, statistics; no file, no device, no training."""

__all__ = [
    "corruption",
    "folding",
    "information",
    "losses",
    "resampling",
    "schedules",
    "stats",
    "threat",
]
