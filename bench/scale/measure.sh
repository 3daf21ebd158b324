#!/usr/bin/env bash
# Two workers of one processor each against one, by plain shards, and Beam's Prism against
# the plain binary: seconds to score the built-in images, over and over.
#   bench/scale/measure.sh FOLDER [IMAGES]    # FOLDER: made by "nac quickstart --keep FOLDER"
# NAC and NAC_BEAM name the binaries.
set -euo pipefail
data=$(realpath "$1") n=${2:-12000}
nac=${NAC:-nac} beam=${NAC_BEAM:-nac-beam}
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
list=$work/list.txt detector=$work/nac.nac
all=$(cat "$data"/benchmark_imglist/*/test_fashion.txt)
while true; do printf '%s\n' "$all"; done 2>/dev/null | head -n "$n" > "$list" || true
"$nac" fit --model "$data/checkpoints/fashion_resnet20.safetensors" --arch resnet20 --id "$data"/benchmark_imglist/*/main_train_fashion.txt \
  --root "$data/images_classic" --mean 0.2752,0.2752,0.2752 --std 0.3336,0.3336,0.3336 --detector nac --quiet -o "$detector" >/dev/null

score() { "$nac" score "$detector" "$list" --root "$data/images_classic" --quiet "$@" 2>/dev/null; }
timed() { # NAME COMMAND...
  local name=$1 begin; shift; begin=$(date +%s%N); "$@"
  awk -v n="$name" -v images="$n" -v t=$(($(date +%s%N) - begin)) 'BEGIN { printf "%-28s %6.2f s %7.0f images/s\n", n, t/1e9, images/t*1e9 }'
}
beam() { "$beam" score --detector "$detector" --root "$data/images_classic" --out "$work/beam" "$list" >/dev/null 2>"$work/log"; }
one() { GOMAXPROCS=1 score --out "$work/one.jsonl"; }
two() {
  GOMAXPROCS=1 score --shard 0/2 --out "$work/0.shard" &
  GOMAXPROCS=1 score --shard 1/2 --out "$work/1.shard" & wait
  "$nac" merge "$work"/?.shard -o "$work/two.jsonl" 2>/dev/null
}
for round in 1 2 3; do
  rm -f "$work"/*.shard
  timed "one worker, 1 processor" one
  timed "two workers, merge included" two
done
cmp "$work/one.jsonl" "$work/two.jsonl" && echo "the results are equal"
for round in 1 2 3; do
  timed "nac, 2 processors" score --out "$work/plain.jsonl"
  timed "nac-beam on Prism" beam
done
cat "$work"/beam/scores-*.jsonl | cmp - "$work/plain.jsonl" && echo "the results are equal"
