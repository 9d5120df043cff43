"""How other people's nets come in, and ours go out: the rooms beyond speak other formats."""

__all__ = ["exporting", "importing", "options"]
