"""advkit: adversarial training of image classifiers as composable command-line stages."""

__version__ = "0.1.0"
