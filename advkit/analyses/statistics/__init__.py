"""Scores, intervals and neighbours of logits."""
