#!/bin/sh
# stress.sh PROGRAM... runs the test programs three times, each time in another order, while twice as many busy
# processes as CPUs run beside them.  SEED=n repeats the orders.  The programs are those of `make check`, built before.
set -u
seed=${SEED:-$(date +%s)}
echo "check-stress: SEED=$seed"

# A busy process ends with this script, even if this script is killed.
busy=
trap 'test -z "$busy" || kill $busy 2>/dev/null' EXIT
trap 'exit 1' HUP INT TERM
for one in $(seq $((2 * $(nproc)))); do
	sh -c 'while kill -0 "$1" 2>/dev/null; do i=0; while test $i -lt 100000; do i=$((i + 1)); done; done' busy $$ &
	busy="$busy $!"
done

shuffled() {
	printf '%s\n' "$@" | awk -v seed="$1" 'NR == 1 { srand(seed); next } { print rand() "\t" $0 }' | sort -n | cut -f 2
}

failed=0
for round in 1 2 3; do
	echo "check-stress: round $round of 3, SEED=$seed"
	"$MAKE" check-TESTS TESTS="$(shuffled $((seed + round)) "$@" | tr '\n' ' ')" || failed=$((failed + 1))
done
test "$failed" = 0 || { echo "check-stress: $failed of 3 rounds failed, SEED=$seed"; exit 1; }
echo "check-stress: 3 rounds, none failed, SEED=$seed"
