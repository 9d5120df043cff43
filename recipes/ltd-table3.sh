#!/usr/bin/env bash
# LTD's own rows of its Table 3, ImageNet at eps 4/255 on ResNet-50 and WRN-50-2, and TRADES on one-hot
# labels with the same settings (METHODS=ltd leaves it out). The teacher gives labels on the fly (no file
# holds those of every crop); attacked are RobustBench's 5,000 images.
#
#   TEMPERATURE=1 LIST=imagenet_test_image_ids.txt ltd-table3.sh [FOLDER]
#
#   TEMPERATURE     the paper does not state it, so it must be given
#   LIST            RobustBench's list of 5,000 images; all of val/ if empty
#   DATA=imagenet  ARCH="resnet50 wrn-50-2"; SEEDS, JOBS, LIMIT, ATTACK, TRAIN, SMOKE as in
#   _table.sh
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_table.sh"

start "${1:-runs/ltd-table3}"
: "${TEMPERATURE:=${smoke:+1}}"
need TEMPERATURE 'the paper states no temperature for ImageNet'
if [ "$preset" = '--preset repo' ]; then
    echo "ltd-table3: no code has a configuration for ImageNet: leave PRESET=repo out" >&2
    exit 2
fi
data=${DATA:-imagenet} list=${LIST:-}
for arch in ${ARCH:-resnet50 wrn-50-2}; do
    twin "$data" "$arch" trades ltd
    teach "$data" "$arch"
    row "$data" "$arch" ltd --teacher "$teacher" --temperature "$TEMPERATURE"
done
work
finish
