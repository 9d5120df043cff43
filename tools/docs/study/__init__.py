"""What tools/docs/results.py needs to tell claims from figures."""
