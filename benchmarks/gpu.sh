#!/usr/bin/env bash
# What a GPU makes of advkit, in at most eight minutes: benchmarks/gpu.sh [OUT]
#
# One JSON file a part in OUT (gpu-results), written as the part ends, so that what is done is kept.
# A part that fails or takes too long is written as failed, and the next one begins; exit 1 then.
# DATA=folder:DIR adds AT against ADR on that data set. DEVICE=cpu runs all of it with tiny sizes,
# to see that it runs; SMALL=1 does so elsewhere.
set -uo pipefail

out=${1:-gpu-results}
device=${DEVICE:-cuda}
data=${DATA:-}
python=${PYTHON:-python}
small=${SMALL:-$([[ $device == cpu ]] && echo 1)}
# A CPU may be busy with other work: it gets four times as long.
slow=$([[ $device == cpu ]] && echo 4 || echo 1)
total=${SECONDS_AT_MOST:-$((470 * slow))}
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$out" || exit 5
began=$SECONDS
failed=0
# The study is given what the others leave, at least this.
kept=$([[ -n $data ]] && echo 170 || echo 0)

# part NAME LIMIT COMMAND...: its last line of output is the part's JSON, or what it had so far.
part() {
    local had name=$1 limit=$(($2 * slow)) left=$((total - kept - (SECONDS - began))) start=$SECONDS code
    shift 2
    limit=$((left < limit ? left : limit))
    rm -f "$out/$name.json"
    if ((limit < 5)); then
        code=124
        echo "no time left" >"$out/$name.log"
    else
        timeout --kill-after=10 "$limit" "$@" >"$out/$name.out" 2>"$out/$name.log"
        code=$?
    fi
    if ((code == 0)); then
        tail -n 1 "$out/$name.out" >"$out/$name.json"
        echo "$name: done in $((SECONDS - start)) s" >&2
    else
        failed=1
        had=$(tail -n 1 "$out/$name.out" 2>/dev/null | grep '^{.*}$')
        printf '{"benchmark": "gpu %s", "failed": %d, "seconds": %d, "limit": %d, "so_far": %s}\n' \
            "$name" "$code" "$((SECONDS - start))" "$limit" "${had:-null}" >"$out/$name.json"
        echo "$name: failed (exit $code) after $((SECONDS - start)) s, see $out/$name.log" >&2
    fi
    rm -f "$out/$name.out"
}

# tests: those with the marker gpu; without CUDA they are skipped, each with its reason.
tests() {
    cd "$here/.." || exit 1
    "$python" -m pytest -m gpu -rs -p no:cacheprovider --junitxml "$report" tests/training/test_gpu.py >&2
    code=$?
    "$python" - "$report" <<'END'
import json, sys
from xml.etree import ElementTree
(suite,) = ElementTree.parse(sys.argv[1]).getroot().iter("testsuite")
counts = {name: int(suite.get(name)) for name in ("tests", "failures", "errors", "skipped")}
print(json.dumps({"benchmark": "gpu tests", **counts}))
END
    exit "$code"
}

bench=("$python" "$here/gpu.py")
common=(--device "$device" ${small:+--small})
[[ $out == /* ]] || out=$PWD/$out
report=$out/tests.xml
export -f tests
export here python report

part tests 120 bash -c tests
part step-at 50 "${bench[@]}" step "${common[@]}"
part step-adr 50 "${bench[@]}" step --method adr "${common[@]}"
part epoch 75 "${bench[@]}" epoch "${common[@]}"
part autoattack 110 "${bench[@]}" autoattack "${common[@]}"
part compiled-at 90 "${bench[@]}" compiled "${common[@]}"
part compiled-adr 90 "${bench[@]}" compiled --method adr "${common[@]}"
if [[ -n $data ]]; then
    kept=0
    left=$((total - (SECONDS - began)))
    part study "$left" "${bench[@]}" study --data "$data" --seconds "$((left - 15))" "${common[@]}"
fi
exit "$failed"
