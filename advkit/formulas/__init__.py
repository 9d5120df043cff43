"""Formulas alone: losses, schedules, threat models, statistics; no file, no device, no training."""

__all__ = [
    "accuracy",
    "corruption",
    "folding",
    "hyperplane",
    "information",
    "losses",
    "minimum",
    "resampling",
    "schedules",
    "stats",
    "threat",
]
