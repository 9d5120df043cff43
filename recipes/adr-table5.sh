#!/usr/bin/env bash
# ADR's own rows of its Table 5: AT and AT+ADR on TinyImageNet, with weight averaging on ResNet-18,
# with AWP too on WRN-34-10.
#
#   adr-table5.sh [FOLDER]
#
#   DATA=tinyimagenet  ARCH="resnet18 wrn-34-10" (another one: all three rows); SEEDS, JOBS, PRESET,
#   LIMIT, ATTACK, TRAIN, SMOKE as in _table.sh
# adr-table2.sh has these rows among its own: they are the better of its two rows of averaged weights.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_table.sh"

start "${1:-runs/adr-table5}"
for data in ${DATA:-tinyimagenet}; do
    for arch in ${ARCH:-resnet18 wrn-34-10}; do
        row "$data" "$arch" at
        [ "$arch" = wrn-34-10 ] || row "$data" "$arch" adr-wa
        [ "$arch" = resnet18 ] || row "$data" "$arch" adr-awp-wa
    done
done
work
finish
