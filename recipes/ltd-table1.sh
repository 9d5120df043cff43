#!/usr/bin/env bash
# LTD's own rows of its Table 1, CIFAR-10 with TRADES and with AWP at T = 5, and what they stand
# beside: TRADES and TRADES-AWP on one-hot labels with LTD's settings.
#
#   ltd-table1.sh [FOLDER]
#
#   DATA=cifar10  TEMPERATURE= (5 by the paper)  VIEWS=all; SEEDS, JOBS, PRESET, LIMIT, ATTACK,
#   TRAIN, SMOKE as in _table.sh
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_table.sh"

start "${1:-runs/ltd-table1}"
data=${DATA:-cifar10}
cold=${TEMPERATURE:+--temperature $TEMPERATURE}
for arch in ${ARCH:-wrn-34-10 wrn-34-20}; do
    if [ "$arch" != wrn-34-20 ]; then
        twin "$data" "$arch" trades ltd
        twin "$data" "$arch" trades-awp ltd-awp
    fi
    label "$data" "$arch"
    # shellcheck disable=SC2086  # an option and its value
    [ "$arch" = wrn-34-20 ] || row "$data" "$arch" ltd --soft-labels "$labels" $cold
    # shellcheck disable=SC2086
    row "$data" "$arch" ltd-awp --soft-labels "$labels" $cold
done
work
finish
