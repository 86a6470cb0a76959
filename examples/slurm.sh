#!/bin/bash
# Train the band whose number is that of the task, and go on where an earlier job of it was ended:
#
#     sbatch --array=0-35 examples/slurm.sh sub36
#
#SBATCH --job-name=spectral
#SBATCH --output=spectral-%A-%a.log
#SBATCH --gpus=1
#SBATCH --cpus-per-task=4
#SBATCH --mem=32G
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=TERM@120
set -euo pipefail

split=$1
band=$(printf '%02d' "$SLURM_ARRAY_TASK_ID")
exec spectral train --shards "$split/$band" --out "runs/$(basename "$split")/$band" "${@:2}"
