#!/usr/bin/env bash
# Every analysis on digits runs: trains and attacks what they need, and draws each picture with its
# numbers beside it. docs/gallery.md shows them and says how to read them.
#
#   gallery.sh [FOLDER]             PICTURES=FOLDER/pictures   where pictures and numbers go
#                                   LIMIT=   first N test images under AutoAttack; all if empty
#                                   SMOKE=1  a trial in a minute
#
# Run it again and it finds its training done; pictures are drawn anew.
set -euo pipefail
case ${1:-} in -*) sed -n '2,/^set /{/^#/s/^# \{0,1\}//p;}' "$0"; exit 0 ;; esac

out=${1:-gallery}
pictures=${PICTURES:-$out/pictures}
limit=${LIMIT:-}
train='' short='--epochs 12' few=''
if [ -n "${SMOKE:-}" ]; then
    train='--epochs 4 --limit 400 --batch-size 32 --width 8' short=$train limit=20
    few='--limit 20'
fi
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
mkdir -p "$out" "$pictures"

one() {  # NAME ATTACK OPTION...: train a run and attack its best checkpoint, the last one too for the table
    local name=$1 attack=${2//,/ }
    shift 2
    set -- "${@/#LABELS/$labels}"  # the folder's name may hold what xargs would not pass on
    advkit train -q --data digits "$@" --resume -o "$out/$name" > "$out/$name.jsonl"
    local checkpoints=("$out/$name/best.safetensors")
    case $name in at-s* | adr-s*) checkpoints+=("$out/$name/final.safetensors") ;; esac
    # shellcheck disable=SC2086  # the option strings are meant to split
    advkit attack -q $attack ${limit:+--limit $limit} "${checkpoints[@]}" > "$out/$name.attack.jsonl"
    echo "done: $name" >&2
}
export -f one
labels=$out/labels.h5
export out limit labels

plan() {  # natural, AT and ADR for two seeds; ADR over constant temperature and trust, for less long
    local seed method tau lambda
    for seed in 0 1; do
        for method in natural at adr; do
            echo "$method-s$seed --autoattack --method $method --seed $seed${train:+ $train}"
        done
    done
    for tau in 0.5 1.0 2.0; do
        for lambda in 0.2 0.5 0.8; do
            echo "adr-tau$tau-lambda$lambda --attack,pgd --method adr --tau $tau:$tau" \
                "--lambda $lambda:$lambda $short"
        done
    done
}
plan | xargs -P 2 -L 1 bash -euo pipefail -c 'one "$@"' _

# LTD at four temperatures of the natural run's logits, under PGD and AutoAttack.
advkit softlabels -q --views all -o "$labels" "$out/natural-s0/best.safetensors" > "$out/labels.jsonl"
for t in 1 5 20 50; do
    echo "ltd-T$t --autoattack --method ltd --soft-labels LABELS --temperature $t${train:+ $train}"
done | xargs -P 2 -L 1 bash -euo pipefail -c 'one "$@"' _
# shellcheck disable=SC2086
advkit attack -q --attack pgd --loss ce ${limit:+--limit $limit} "$out"/ltd-T*/best.safetensors > "$out/ltd.pgd.jsonl"

# Photos are no digits.
advkit attack -q --attack none --data photos ${limit:+--limit $limit} \
    "$out"/{natural,at,adr}-s[01]/best.safetensors > "$out/photos.jsonl"

draw() {  # ANALYSIS [WORD...]: its picture and its records
    local what=$1
    shift
    advkit analyze "$what" -q "$@" --plot "$pictures/$what.png" > "$pictures/$what.jsonl"
    echo "drawn: $pictures/$what.png" >&2
}
best() { local name; for name; do ls "$out/$name"/best.autoattack*.h5; done; }
checkpoints() { local name; for name; do echo "$out/$name/best.safetensors"; done; }
three='natural-s0 at-s0 adr-s0'
six="$three natural-s1 at-s1 adr-s1"

# shellcheck disable=SC2086
{
    best $three | draw entropy
    best $three | draw divergence
    best $three | draw calibration
    best at-s0 adr-s0 | draw classes
    best adr-s0 | draw embedding
    cat "$out/photos.jsonl" <(best $three) | grep -v s1/ | draw ood
    cat "$out/photos.jsonl" <(best $six) | draw findings
    best at-s0 adr-s0 | draw compare
    cat "$out"/{at,adr}-s[01].attack.jsonl | draw table --against adr-table1
    cat "$out"/{at,adr}-s[01].attack.jsonl |
        advkit analyze table -q --against adr-table1 -o "$out/table.html" --overwrite > /dev/null
    cat "$out"/{natural,at,adr}-s0.jsonl |
        advkit analyze cost -q -o "$pictures/cost.csv" --overwrite > "$pictures/cost.jsonl"
    cat "$out"/adr-tau*.attack.jsonl | draw grid --x lambda --y tau
    cat "$out"/ltd-T*.attack.jsonl "$out/ltd.pgd.jsonl" | draw temperature
    draw labels "$labels"
    draw discrepancy --simulate dirichlet
    checkpoints $three | draw weight-landscape $few
    checkpoints $three | draw input-landscape
    checkpoints at-s0 adr-s0 | draw sweep $few
    checkpoints adr-s0 ltd-T20 | draw masking $few
}
echo "pictures: $pictures" >&2
