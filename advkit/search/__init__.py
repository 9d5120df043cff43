"""Searches for the numbers that a method needs."""
