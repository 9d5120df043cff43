"""The command line: parse, call one engine, print a record. It computes nothing."""

__all__ = ["app"]
