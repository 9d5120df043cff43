"""Files that stages exchange: whole or absent, digested, saying where they come from."""

__all__ = [
    "analysis",
    "artifact",
    "checkpoint",
    "claims",
    "describing",
    "descriptions",
    "document",
    "files",
    "hdf5",
    "identity",
    "locks",
    "provenance",
    "record",
    "result",
    "rows",
    "schema",
    "sharing",
    "soft_labels",
]
