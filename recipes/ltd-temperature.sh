#!/usr/bin/env bash
# LTD's Table 4 at a small size: one labels file, ten temperatures, two seeds; clean, PGD-10 and
# AutoAttack accuracy of each, a table and a plot. What PGD claims where AutoAttack finds nothing
# left is the point of it.
#
#   ltd-temperature.sh [FOLDER]
#
#   DATA=digits                     or folder:DIR with TRAIN="--image-size 16 --arch resnet8 ..."
#   TRAIN=""  TEACHER="$TRAIN"      options of student and teacher
#   TEACHER_CHECKPOINT=FILE         a teacher that is there already
#   VIEWS=all                       views in the labels file
#   TEMPERATURES="1 2 3 5 8 10 12 15 20 50"   SEEDS="0 1"   LIMIT=200 test images   JOBS=2
#   SMOKE=1                         a trial in a minute
#
# Run it again and it goes on where it was.
set -euo pipefail
case ${1:-} in -*) sed -n '2,/^set /{/^#/s/^# \{0,1\}//p;}' "$0"; exit 0 ;; esac

out=${1:-runs/ltd-temperature}
if [ -n "${SMOKE:-}" ]; then
    TRAIN='--epochs 4 --limit 400 --batch-size 32 --width 8' TEMPERATURES='1 5' SEEDS=0 LIMIT=20
fi
data=${DATA:-digits}
train=${TRAIN:-}
teacher=${TEACHER:-$train}
temperatures=${TEMPERATURES:-1 2 3 5 8 10 12 15 20 50}
seeds=${SEEDS:-0 1}
limit=${LIMIT:-200}
jobs=${JOBS:-2}
mkdir -p "$out"

if [ -n "${TEACHER_CHECKPOINT:-}" ]; then
    echo "$TEACHER_CHECKPOINT" > "$out/teacher.jsonl"
else
    # shellcheck disable=SC2086  # the option strings are meant to split
    advkit pretrain-teacher --data "$data" $teacher --resume -o "$out/teacher" > "$out/teacher.jsonl"
fi
advkit softlabels --data "$data" --views "${VIEWS:-all}" -o "$out/labels.h5" < "$out/teacher.jsonl" \
    > "$out/labels.jsonl"
advkit analyze labels -q -o "$out/labels.csv" < "$out/labels.jsonl" > "$out/targets.jsonl"

one() {
    local run="$out/T$1-s$2"
    # shellcheck disable=SC2086
    advkit train -q --method ltd --temperature "$1" --seed "$2" $TRAIN --resume -o "$run" \
        < "$out/labels.jsonl" > "$run.jsonl"
    advkit attack -q --attack pgd --steps 10 --loss ce --limit "$limit" < "$run.jsonl" > "$run.pgd.jsonl"
    advkit attack -q --autoattack --limit "$limit" < "$run.jsonl" > "$run.aa.jsonl"
    echo "T=$1 seed $2 done" >&2
}
export -f one
export out limit TRAIN="$train" OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

for seed in $seeds; do
    for t in $temperatures; do echo "$t $seed"; done
done | xargs -P "$jobs" -L 1 bash -euo pipefail -c 'one "$@"' _

files=()
for t in $temperatures; do
    for seed in $seeds; do files+=("$out/T$t-s$seed"); done
done
for kind in pgd aa; do
    for file in "${files[@]}"; do cat "$file.$kind.jsonl"; done
done | advkit analyze temperature -o "$out/temperature.csv" --plot "$out/temperature.png" --overwrite \
    > "$out/temperature.jsonl"
echo "table: $out/temperature.csv, picture: $out/temperature.png" >&2
