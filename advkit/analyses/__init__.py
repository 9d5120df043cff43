"""Analyses: numbers, a table and pictures from files, without a model.

Each part declares the artifact kinds it takes in `KINDS`, and `COMPARES = True` if it looks at
all its inputs at once (otherwise it gets them one by one). `PROBES = True` asks for a checkpoint's
model and data, a `_probe.Probe` each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from advkit.artifacts.document import Document
from advkit.artifacts.hdf5 import Logits
from advkit.artifacts.rows import Rows, height
from advkit.artifacts.soft_labels import SoftLabels
from advkit.errors import InputError, UsageError
