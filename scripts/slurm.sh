#!/usr/bin/env bash
#SBATCH --job-name=marl
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR2@180
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.out
# A command of this project as a Slurm job that goes on where it was preempted or ran out of time:
#   sbatch [OPTION ...] scripts/slurm.sh python scripts/train.py env=coin_game total_steps=1e9
# Options before the name of this file win over those above. 180 s before its time is over, and when it is
# preempted, Slurm sends USR2: the run saves and leaves with 75, and the job is queued again. docs/cluster.md
set -u
if [ $# -eq 0 ]; then
    sed -n 's/^# //p' "$0"
    exit 2
fi
if [[ "$*" == *train.py* && "$*" != *run_dir=* ]]; then
    set -- "$@" "run_dir=runs/slurm-$SLURM_JOB_ID"
fi
echo "$(date): $*"
again=
pass_on() { signalled=yes; kill -s "$1" "$child"; }
"$@" &
child=$!
trap 'again=yes; pass_on USR2' USR2
trap 'pass_on TERM' TERM
signalled=yes
while [ "$signalled" ]; do # a signal ends the wait, not the run
    signalled=
    wait "$child"
    code=$?
done
if [ "$again" ] && [ $code -eq 75 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit $code
