"""Searches for the numbers that a method needs."""

__all__ = ["adr_stage", "options", "stage", "temperature"]
