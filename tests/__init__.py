"""Tests mirror advkit. Property tests are repeatable and never fail on a slow machine."""

import os

from hypothesis import settings

EXAMPLES = int(os.environ.get("ADVKIT_TEST_EXAMPLES", "30"))
"""Cases that are tried of each property; hypothesis' own number is 100."""
settings.register_profile(
    "advkit", deadline=None, derandomize=True, database=None, max_examples=EXAMPLES
)
settings.load_profile("advkit")
