#!/bin/sh
# A test that fails says why in its last lines: the case, the assertion, the seed, and the processes that are left.
. "${srcdir:-.}/t/lib/gate.sh"
ulimit -S -c 0

# ends TEXT LINES PATTERN...: the last so many lines of what was said have each of these.
ends() {
	text=$1
	tail -n "$2" "$tmp/log" >"$tmp/end"
	shift 2
	for pattern in "$@"; do
		grep -q "$pattern" "$tmp/end" || { echo "no line has: $pattern"; cat "$tmp/end"; } >>"$tmp/missing"
	done
	: >>"$tmp/missing"
	empty "$text" "$tmp/missing"
	rm "$tmp/missing"
}

fail() {
	TEST_TIME_SCALE=0.05 ./t/lib/failing "$@" >"$tmp/log" 2>&1 || :
}

fail
ends 'at the end, case by case' 9 '^# ---- failed: 3 of 4 ----$' \
	'^# numbers_at_random - 1 failed$' '^#   .*failing.cpp(23): error: .*17 != 18' '^#   TEST_SEED=17$' \
	'^# a_wait_in_vain - 2 failed$' '^#   .*failing.cpp(27): error: .*waited in vain for 3 s$' \
	'^# a_process_is_left - left behind: [0-9]* '
fail --run_test=out_of_time
ends 'out of time' 5 '^# in case out_of_time$' '^#   .*failing.cpp(39): error: .*17 != 18' '^#   TEST_SEED=17$' \
	'^#   process [0-9]* .* is left$' '^Bail out! case out_of_time took longer than 1 s$'
fail --run_test=a_crash
ends 'after a crash' 9 '^# in case a_crash$' '^#   .*failing.cpp(47): error: ' '^#   TEST_SEED=17$' \
	'^#   process [0-9]* .* is left$' '^# the test program has crashed$\|^# a sanitizer ends'
fail --run_test=an_exit
ends 'after an exit' 5 '^# in case an_exit$' '^#   .*failing.cpp(53): error: ' '^#   process [0-9]* .* is left$' \
	'^# the test program calls exit()$'
finish
