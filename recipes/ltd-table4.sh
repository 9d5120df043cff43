#!/usr/bin/env bash
# LTD's Table 4: TRADES on one-hot labels and on the teacher's at nine temperatures, and T = 50.
#
#   ltd-table4.sh [FOLDER]
#
#   TEMPERATURES="1 2 3 5 8 10 12 15 20 50"  DATA=cifar10  ARCH=wrn-34-10  VIEWS=all; SEEDS, JOBS,
#   PRESET, LIMIT, ATTACK, TRAIN, SMOKE as in _table.sh
# The paper's first row is the leaderboard's TRADES at eps 0.031; here it is TRADES with the settings of
# the other rows. Its last row (T = 50) is no LTD: the search's first step, natural training on the labels,
# whose clean accuracy ruled T = 50 out; the paper did not attack it. ltd-temperature.sh is the same at a
# small size, with PGD.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_table.sh"

start "${1:-runs/ltd-table4}"
data=${DATA:-cifar10} arch=${ARCH:-wrn-34-10}
temperatures=${TEMPERATURES:-1 2 3 5 8 10 12 15 20 50}
[ -z "$smoke" ] || temperatures=${TEMPERATURES:-5 50}
label "$data" "$arch"
twin "$data" "$arch" trades ltd
for t in $temperatures; do
    case $t in
        50) twin "$data" "$arch" natural+soft natural --soft-labels "$labels" --temperature "$t" ;;
        *) row "$data" "$arch" ltd --soft-labels "$labels" --temperature "$t" ;;
    esac
done
work
finish
