"""Searches for the numbers that a method needs."""

__all__ = ["options", "stage", "temperature"]
