"""Time per step of methods, images to time with, and what whole runs would take."""

__all__ = ["images", "measure", "options", "projection", "stage", "table"]
