#!/usr/bin/env bash
# Fits, scores and judges on a runner that tries lost bundles again, and kills a worker in the
# middle of each of the three jobs; what comes out must be what nac makes on one machine.
#   beam/retry/run.sh [WORKERS]
# PYTHON names an interpreter that has apache-beam; without it one is set up. NAC and NAC_BEAM
# name programs that are built already.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
workers=${1:-1}
work=$(mktemp -d) service=
trap '[[ -z "$service" ]] || kill "$service" 2>/dev/null || true; rm -rf "$work"' EXIT
if [[ -z "${PYTHON:-}" ]]; then
  python3 -m venv "$work/venv"
  "$work/venv/bin/pip" install --quiet apache-beam==2.75.0
  PYTHON=$work/venv/bin/python
fi
[[ -n "${NAC:-}" ]] || { NAC=$work/nac; (cd ../.. && go build -o "$NAC" ./cmd/nac); }
[[ -n "${NAC_BEAM:-}" ]] || { NAC_BEAM=$work/nac-beam; (cd .. && go build -o "$NAC_BEAM" ./cmd/nac-beam); }

"$NAC" quickstart --keep "$work/data" >/dev/null 2>&1
lists=$(echo "$work"/data/benchmark_imglist/*) images=$work/data/images_classic
classifier=(--model "$work/data/checkpoints/fashion_resnet20.safetensors" --arch resnet20)
standard=(--mean 0.2752,0.2752,0.2752 --std 0.3336,0.3336,0.3336)

"$PYTHON" job_service.py --port-file "$work/port" --events "$work/events" --workers "$workers" --kill-after 0.4 2>"$work/service.log" &
service=$!
until [[ -e "$work/port" ]]; do sleep 0.2; kill -0 "$service"; done
beam() { # COMMAND FLAGS...
  local command=$1; shift
  "$NAC_BEAM" "$command" --runner universal --endpoint "localhost:$(cat "$work/port")" --environment_type PROCESS \
    --environment_config "{\"command\": \"$NAC_BEAM\"}" "$@" >"$work/log" 2>&1 || { tail "$work/log" "$work/service.log"; return 1; }
}

"$NAC" fit "${classifier[@]}" "${standard[@]}" --id "$lists/main_train_fashion.txt" --root "$images" --detector nac --quiet -o "$work/plain.nac" >/dev/null
beam fit "${classifier[@]}" "${standard[@]}" --id-images "$lists/main_train_fashion.txt" --root "$images" --method nac --out "$work/beam.nac"
cmp "$work/plain.nac" "$work/beam.nac" && echo "fit: the detectors are equal"

"$NAC" score "$work/plain.nac" "$lists/test_fashion.txt" --root "$images" --quiet --out "$work/plain.jsonl" 2>/dev/null
beam score --detector "$work/beam.nac" --root "$images" --out "$work/scores" "$lists/test_fashion.txt"
cmp "$work/plain.jsonl" "$work/scores/scores-00000.jsonl" && echo "score: the scores are equal"

bench=(bench --detector "$work/plain.nac" --root "$images" --id-images "$lists/test_fashion.txt" --ood "bag=$lists/test_bag.txt,mnist=$lists/test_mnist.txt")
"$NAC_BEAM" "${bench[@]}" --out "$work/whole" >/dev/null 2>&1
beam "${bench[@]}" --out "$work/killed"
cmp "$work/whole/report.json" "$work/killed/report.json" && echo "bench: the reports are equal"

kill "$service"; wait "$service"; service=
cat "$work/events"; echo
"$PYTHON" - "$work/events" <<'END'
import json, sys
e = json.load(open(sys.argv[1]))
assert e["jobs"] == e["killed"] == 3 and e["retried"] >= 3, "not every job lost a worker"
END
