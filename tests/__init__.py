"""Tests mirror advkit. Property tests are repeatable and never fail on a slow machine."""

from hypothesis import settings

settings.register_profile("advkit", deadline=None, derandomize=True, database=None)
settings.load_profile("advkit")
