# What the study's recipes sum up, in $summary; sourced when all runs are
# done, not run. Every file is written beside and renamed, so that one that is there is whole.
set -euo pipefail

if [ "${RUNS:-}" = only ]; then exit; fi

points() {  # POINT RUN...: RUN/POINT for each
    local point=$1
    shift
    printf "%s/$point " "$@"
}

found() {  # ATTACK SEED RUN/POINT...: those of their logits files that are there, in `files`
    local attack=$1 seed=$2 each name
    shift 2
    files=()
    for each; do
        for name in "$out/${each%/*}-s$seed/${each#*/}.$attack"[-.]*.h5; do
            [ ! -e "$name" ] || files+=("$name")
        done
    done
}

table() {  # ATTACK RUN...: best and final of every seed, as CSV and Markdown
    local attack=$1 seed point kind all=()
    shift
    for point in best final best-ema final-ema; do
        for seed in $seeds; do
            # shellcheck disable=SC2046
            found "$attack" "$seed" $(points $point "$@")
            all+=(${files[@]+"${files[@]}"})
        done
    done
    for kind in csv md; do
        advkit analyze table -q "${all[@]}" -o "$summary/$attack.$kind" --overwrite > /dev/null
    done
}

against() {  # ATTACK BASE OTHER...: each of the others with the first on the same images, by seed
    local attack=$1 seed record each rows
    shift
    for seed in $seeds; do
        found "$attack" "$seed" "$@"
        [ ${#files[@]} -gt 1 ] || continue
        record=$(advkit analyze compare -q "${files[@]}")
        rows=''
        for each in "${files[@]}"; do each=${each#"$out/"} rows="$rows ${each%%.*}"; done
        printf '{"attack": "%s", "seed": %d, "rows": "%s", "record": %s}\n' \
            "$attack" "$seed" "${rows# }" "$record" >> "$summary/compare.jsonl.new"
    done
}

each() {  # ANALYSIS ATTACK RUN/POINT...: a record for each logits file and seed
    local analysis=$1 attack=$2 seed
    shift 2
    for seed in $seeds; do
        found "$attack" "$seed" "$@"
        advkit analyze "$analysis" -q "${files[@]}"
    done > "$summary/$analysis.jsonl.new"
    mv "$summary/$analysis.jsonl.new" "$summary/$analysis.jsonl"
}

conclude() {  # the records of the runs and the seconds of every step, beside the figures
    local name
    [ ! -e "$summary/compare.jsonl.new" ] || mv "$summary/compare.jsonl.new" "$summary/compare.jsonl"
    cut -d ' ' -f 1 "$plan" | while read -r name; do cat "$out/$name.train.jsonl"; done > "$summary/runs.jsonl"
    cp "$out/hours.jsonl" "$out/summary/hours.jsonl"
    echo "figures: $summary" >&2
}
