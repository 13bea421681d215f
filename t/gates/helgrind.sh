#!/bin/sh
# Threads with a Reactor each make, use and drop pools, functions and snapshots under helgrind, while the program forks
# and ends. As in valgrind.sh, each process has a log, and an error leaves a suppression in it.
. "${srcdir:-.}/t/lib/gate.sh"
tool valgrind

cases='eight_threads_use_one_snapshot_at_once threads_make_and_drop_pools_while_the_program_forks_and_exits
the_end_of_one_reactor_ends_its_children_alone all_reactors_learn_of_the_loss_of_a_snapshot
handles_that_are_dropped_elsewhere_end_in_the_thread_of_their_reactor threads_make_and_destroy_reactors_at_once'
mkdir "$tmp/logs"
TEST_TIME_SCALE=20
export TEST_TIME_SCALE
valgrind --tool=helgrind --child-silent-after-fork=yes --log-file="$tmp/logs/%p" --gen-suppressions=all \
	--suppressions="$srcdir/t/gates/helgrind.supp" \
	./t/outside/threads.t --run_test="$(echo $cases | tr ' ' ,)" >"$tmp/said" 2>&1 || :
for name in $cases; do
	if grep -q "^ok [0-9]* - $name\$" "$tmp/said"; then ok "$name"; else not_ok "$name" "$tmp/said"; fi
done

looked_at "$(ls "$tmp/logs" | wc -l)" logs
for log in "$tmp"/logs/*; do
	grep -q insert_a_suppression_name_here "$log" && cat "$log" >>"$tmp/errors"
done
touch "$tmp/errors"
empty 'helgrind reports no error' "$tmp/errors"
finish
