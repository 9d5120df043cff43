"""Formulas alone: losses, schedules, threat models, statistics; no file, no device, no training."""
