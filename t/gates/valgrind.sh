#!/bin/sh
# Cells of the fault matrix, and messages with descriptors, under valgrind. The exit codes of valgrind are not used here, since they would replace those
# of the children: each process has a log of its own, and an error leaves a suppression in it.
. "${srcdir:-.}/t/lib/gate.sh"
tool valgrind

mkdir "$tmp/logs"
TEST_TIME_SCALE=20
export TEST_TIME_SCALE
# under_valgrind PROGRAM CASES
under_valgrind() {
	valgrind --child-silent-after-fork=no --trace-children=no --log-file="$tmp/logs/%p" --gen-suppressions=all \
		--suppressions="$srcdir/t/gates/valgrind.supp" "./$1" --run_test="$2" >"$tmp/said" 2>&1 || :
}
under_valgrind t/inside/matrix.t sample_of_cells
grep '^# .* cells$' "$tmp/said" || :
if grep -q '^ok 1' "$tmp/said"; then ok 'the cells pass'; else not_ok 'the cells pass' "$tmp/said"; fi
under_valgrind t/outside/descriptors.t structures_of_descriptors_travel_with_the_default_codec
if grep -q '^ok 1' "$tmp/said"; then ok 'the messages pass'; else not_ok 'the messages pass' "$tmp/said"; fi

looked_at "$(ls "$tmp/logs" | wc -l)" logs
for log in "$tmp"/logs/*; do
	grep -q insert_a_suppression_name_here "$log" && cat "$log" >>"$tmp/errors"
done
touch "$tmp/errors"
empty 'valgrind reports no error' "$tmp/errors"
finish
