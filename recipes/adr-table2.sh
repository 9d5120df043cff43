#!/usr/bin/env bash
# ADR's Table 2: AT with weight averaging, AWP and ADR, on ResNet-18 and WRN-34-10.
#
#   adr-table2.sh [FOLDER]
#
#   DATA="cifar10 cifar100 tinyimagenet"  ARCH="resnet18 wrn-34-10"; SEEDS, JOBS, PRESET, LIMIT,
#   ATTACK, TRAIN, SMOKE as in _table.sh
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_table.sh"

start "${1:-runs/adr-table2}"
for data in ${DATA:-cifar10 cifar100 tinyimagenet}; do
    for arch in ${ARCH:-resnet18 wrn-34-10}; do
        for method in at at-wa at-awp-wa adr adr-wa adr-awp-wa; do
            row "$data" "$arch" "$method"
        done
    done
done
work
finish
