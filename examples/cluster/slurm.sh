#!/bin/bash
# A job array of SLURM: 64 jobs, of which each does every 64th shard. Submit it again to go on with
# what is missing:    sbatch examples/cluster/slurm.sh
#SBATCH --job-name=embed
#SBATCH --array=0-63
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=16
#SBATCH --mem=32G
#SBATCH --time=04:00:00
#SBATCH --requeue
set -euo pipefail

# INPUT and OUT lie on a file system that all nodes share, or in a store of objects.
clip-adapter scale embed "${INPUT:?a folder of shards}" --out "${OUT:?a folder}" \
  --shard "${SLURM_ARRAY_TASK_ID}/${SLURM_ARRAY_TASK_COUNT}" \
  --backbone "${BACKBONE:-ViT-B-32/openai}" --dtype float16 --json
