#!/usr/bin/env bash
# ADR's own rows of its Table 3: CIFAR-100 with and without a million synthetic images.
#
#   EXTRA=ddpm.npz adr-table3.sh [FOLDER]
#
#   EXTRA   npz file (`image`, `label`) of the synthetic images; needed but for a trial
#   DATA=cifar100; SEEDS, JOBS, PRESET, LIMIT, ATTACK, TRAIN, SMOKE as in _table.sh
# The authors' code has no configuration of the last row: with PRESET=repo it is left out.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_table.sh"

start "${1:-runs/adr-table3}"
data=${DATA:-cifar100}
if [ "$data" = digits ] && [ -z "${EXTRA:-}" ]; then  # real digits stand in for synthetic ones
    EXTRA=$out/extra.npz
    python3 - "$EXTRA" <<'PYTHON'
import sys

import numpy as np
from sklearn.datasets import load_digits

digits = load_digits()
images = np.round(digits.images * 255 / 16).astype(np.uint8)
np.savez(sys.argv[1], image=images[..., None], label=digits.target)
PYTHON
fi
need EXTRA 'the synthetic images are an npz file'
row "$data" "${ARCH:-resnet18}" adr-awp-wa
row "$data" "${ARCH:-preact-resnet18}" adr-awp-wa --extra-data "$EXTRA"
if [ -z "${ARCH:-}" ]; then
    row "$data" wrn-34-10 adr-awp-wa
    [ "${PRESET:-paper}" = repo ] || row "$data" wrn-34-10 adr-awp-wa --extra-data "$EXTRA"
fi
work
finish
