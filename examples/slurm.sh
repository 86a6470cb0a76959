#!/bin/bash
# Train one of the networks of a split, and go on where an earlier job of it was ended:
#
#     sbatch --array=0-3 examples/slurm.sh sub36                 the four networks that a split gets by default
#     sbatch --array=0-35 examples/slurm.sh sub36 --bands all    one for each band
#
#SBATCH --job-name=spectral
#SBATCH --output=spectral-%A-%a.log
#SBATCH --gpus=1
#SBATCH --cpus-per-task=4
#SBATCH --mem=32G
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=B:TERM@120
set -euo pipefail

# source /path/to/.venv/bin/activate, where the shell of a job does not find `spectral`
exec spectral train --shards "$1" --share "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT" "${@:2}"
