#!/usr/bin/env bash
# ADR's Table 7: AT and AT+ADR on CIFAR-10 and ResNet-18, five times each, under PGD-100.
#
#   adr-table7.sh [FOLDER]
#
#   SEEDS="0 1 2 3 4"  ATTACK="--attack pgd --steps 100 --loss ce"  DATA=cifar10  ARCH=resnet18; JOBS, PRESET,
#   LIMIT, TRAIN, SMOKE as in _table.sh
# The paper's deviations divide by 5, those of the table here by 4.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_table.sh"

ATTACK=${ATTACK:---attack pgd --steps 100 --loss ce}
[ -n "${SMOKE:-}" ] || SEEDS=${SEEDS:-0 1 2 3 4}
start "${1:-runs/adr-table7}"
for data in ${DATA:-cifar10}; do
    for method in at adr; do row "$data" "${ARCH:-resnet18}" "$method"; done
done
work
finish
