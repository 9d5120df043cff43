#!/usr/bin/env bash
# LTD's own row of its Table 2, CIFAR-100 with AWP on WRN-34-10, and TRADES-AWP on one-hot labels
# with the same settings.
#
#   TEMPERATURE=2 ltd-table2.sh [FOLDER]
#
#   TEMPERATURE     the paper does not state it, so it must be given (see `advkit search`)
#   DATA=cifar100  VIEWS=all; SEEDS, JOBS, PRESET, LIMIT, ATTACK, TRAIN, SMOKE as in
#   _table.sh
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_table.sh"

start "${1:-runs/ltd-table2}"
: "${TEMPERATURE:=${smoke:+2}}"
need TEMPERATURE 'the paper states no temperature for CIFAR-100'
data=${DATA:-cifar100} arch=${ARCH:-wrn-34-10}
twin "$data" "$arch" trades-awp ltd-awp
label "$data" "$arch"
row "$data" "$arch" ltd-awp --soft-labels "$labels" --temperature "$TEMPERATURE"
work
finish
