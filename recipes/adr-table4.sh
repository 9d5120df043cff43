#!/usr/bin/env bash
# ADR's Table 4: TRADES with weight averaging, AWP and ADR, on ResNet-18.
#
#   adr-table4.sh [FOLDER]
#
#   DATA="cifar10 cifar100 tinyimagenet"  ARCH=resnet18; SEEDS, JOBS, PRESET, LIMIT, ATTACK, TRAIN,
#   SMOKE as in _table.sh
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_table.sh"

start "${1:-runs/adr-table4}"
for data in ${DATA:-cifar10 cifar100 tinyimagenet}; do
    for method in trades trades-wa trades-awp-wa trades-adr trades-adr-wa trades-adr-awp-wa; do
        row "$data" "${ARCH:-resnet18}" "$method"
    done
done
work
finish
