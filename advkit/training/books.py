"""The sums of an epoch, and the alarm of masking."""

from __future__ import annotations

PERFECT, FLAT_TARGETS = 0.97, 0.9
"""Training robust accuracy, and target entropy as a share of ln C, above which to be alarmed."""
