#!/bin/bash
# A batch as a Slurm array: each task registers every 8th pair. Then a last job puts the rows together, tries failed
# pairs again and writes the page:
#
#   array=$(sbatch --parsable slurm_array.sh pairs.csv out)
#   sbatch --dependency=afterany:$array --wrap "corereg batch pairs.csv -o out"
#
#SBATCH --job-name=corereg
#SBATCH --array=1-8
#SBATCH --cpus-per-task=4
#SBATCH --mem=16G
#SBATCH --time=12:00:00
#SBATCH --requeue

set -euo pipefail

corereg batch "$1" -o "$2" --jobs 2 --threads 2 --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT"
