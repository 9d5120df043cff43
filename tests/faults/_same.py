"""A chain of stages whose every file must be a function of the seed alone."""

CHAIN = """
import sys
from advkit.__main__ import main
net = "--width 4 --limit 120 --batch-size 32 --epochs 2 -q".split()
runs = [
    ["pretrain-teacher", "--data", "digits", *net, "-o", "teacher"],
    ["softlabels", "teacher/best.safetensors", "--views", "3", "-q", "-o", "labels.h5"],
    ["train", "--data", "digits", "--method", "trades-adr-awp-wa", "--attack-steps", "2", *net,
     "-o", "run"],
    ["attack", "run/best.safetensors", "--attack", "pgd", "--steps", "3", "--restarts", "2",
     "--limit", "30", "-q", "-o", "logits.h5"],
    ["analyze", "calibration", "--resamples", "20", "logits.h5", "-o", "calibration.json", "-q"],
    ["analyze", "entropy", "logits.h5", "-o", "entropy.h5", "-q"],
    ["analyze", "labels", "labels.h5", "-o", "labels.csv", "-q"],
]
for words in runs:
    if main(words) != 0:
        sys.exit(1)
"""
"""Python code: a teacher, its labels, a run with every part that draws, verdicts, analyses."""
