#!/bin/bash
#SBATCH --job-name=nac-fit
#SBATCH --array=0-3
#SBATCH --cpus-per-task=4
#SBATCH --mem=4G
#SBATCH --requeue
# Fits a detector in as many shards as the array has tasks. Tasks that are requeued go on
# where they were. Afterwards: nac merge shards/* -o detector.nac
set -euo pipefail

MODEL=${MODEL:-model.onnx} # and what else nac fit needs, in FLAGS
IMAGES=${IMAGES:-train/}
FLAGS=${FLAGS:-"--normalize imagenet"}

mkdir -p shards
# shellcheck disable=SC2086
exec nac fit --model "$MODEL" --id "$IMAGES" $FLAGS --quiet \
  --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT" \
  --out "shards/$SLURM_ARRAY_TASK_ID"
