#!/usr/bin/env bash
# ADR's Table 1: AT and TRADES, each with and without ADR, on ResNet-18.
#
#   adr-table1.sh [FOLDER]
#
#   DATA="cifar10 cifar100 tinyimagenet"  ARCH=resnet18; DATA=digits SEEDS="0 1 2" for minutes on
#   two cores; SEEDS, JOBS, PRESET, LIMIT, ATTACK, TRAIN, SMOKE as in _table.sh
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_table.sh"

start "${1:-runs/adr-table1}"
for data in ${DATA:-cifar10 cifar100 tinyimagenet}; do
    for method in at adr trades trades-adr; do
        row "$data" "${ARCH:-resnet18}" "$method"
    done
done
work
finish
