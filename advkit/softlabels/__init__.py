"""A teacher's logits: written once, merged from shards, read in training."""

__all__ = ["labelling", "merge", "options", "source", "stage"]
