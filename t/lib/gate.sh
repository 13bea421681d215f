# gate.sh - the start of every gate: TAP, a folder for files, and a failure if a tool is missing.
# A gate reads $srcdir, runs in the build tree, and writes only into $tmp.
set -eu
LC_ALL=C
export LC_ALL

srcdir=${srcdir:-.}
points=0
tmp=$(mktemp -d)
: >"$tmp/failed"
# The plan comes last. A gate that dies early prints none, which is an error for the driver.
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM

ok() {
	points=$((points + 1))
	echo "ok $points - $1"
}

# not_ok TEXT [FILE]: FILE has the details. They are printed again at the end, as far as they are short: a truncated log
# may contain nothing else.
not_ok() {
	points=$((points + 1))
	echo "not ok $points - $1"
	echo "# $1" >>"$tmp/failed"
	test -z "${2-}" || { sed 's/^/# /' "$2"; sed -e 's/^/#   /' -e 10q "$2" >>"$tmp/failed"; }
}

# check TEXT COMMAND...: the output of the command is the diagnosis.
check() {
	text=$1
	shift
	if "$@" >"$tmp/said" 2>&1; then ok "$text"; else not_ok "$text" "$tmp/said"; fi
}

# Independent jobs run on all CPUs:
#   queue COMMAND...    sets $queued, the number of the job; nothing runs yet
#   run_queue           runs all queued jobs that have not run, and returns when the last one has ended
#   checked TEXT JOB    as check, for a job that has ended
#   status_of JOB, said_by JOB: its exit status, and the file with its output
queued=0
queue() {
	queued=$((queued + 1))
	for word; do printf "'%s' " "$(printf '%s' "$word" | sed "s/'/'\\\\''/g")"; done >"$tmp/job.$queued"
}

run_queue() {
	for job in "$tmp"/job.*; do case $job in *.said | *.status) ;; *) test -e "$job.status" || echo "$job" ;; esac; done |
		xargs -P "$(nproc)" -n 1 sh -c 'sh "$0" >"$0.said" 2>&1; echo $? >"$0.status"'
}

status_of() { cat "$tmp/job.$1.status"; }
said_by() { echo "$tmp/job.$1.said"; }

checked() {
	if test "$(status_of "$2")" = 0; then ok "$1"; else not_ok "$1" "$(said_by "$2")"; fi
}

# precompile NAME COMMAND...: compiles <evparallel/evparallel.hpp>, which takes most of the time of a small program.
# with NAME FILE: the options by which the same command reads the result, for a FILE that includes this header before all
# others: it compiles as without them. There are none if the header does not compile, so that the programs show why.
precompile() {
	precompiled=$tmp/precompiled.$1.hpp
	shift
	echo "#include \"$(cd "$srcdir" && pwd)/include/evparallel/evparallel.hpp\"" >"$precompiled"
	"$@" -x c++-header -o "$precompiled.gch" "$precompiled" >"$tmp/said" 2>&1 || rm -f "$precompiled.gch"
}

with() {
	if test -f "$tmp/precompiled.$1.hpp.gch" && test "$(grep -m 1 '^ *#' "$2")" = '#include <evparallel/evparallel.hpp>'; then
		echo "-include $tmp/precompiled.$1.hpp"
	fi
}

# runs TEXT PROGRAM [ARGUMENT...]: the program ends in time, with status 0, without any input; a child that is meant to
# crash writes no core.
runs() {
	ulimit -S -c 0
	seconds=$(awk 'BEGIN { print int(300 * (ENVIRON["TEST_TIME_SCALE"] > 0 ? ENVIRON["TEST_TIME_SCALE"] : 1)) + 1 }')
	text=$1
	shift
	check "$text" timeout -k 5 "$seconds" "$@" </dev/null
}

# The warnings that careful users enable; debug information has none. The code of a sanitizer has warnings of its own.
strict='-O2 -g0 -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion -Werror'
test -z "${audit-}" || strict=-O0

# examples_of PAGE NAME: writes each literal display under EXAMPLES as NAME-1.cpp, NAME-2.cpp, ... Each is a whole
# program.
examples_of() {
	awk -v to="$2" '
	/^\.Sh/ { here = ($2 == "EXAMPLES") }
	here && /^\.Bd -literal/ { file = to "-" ++n ".cpp"; code = 1; printf "" >file; next }
	/^\.Ed/ { if (code) close(file); code = 0 }
	code && !/^\.\\"/ { gsub(/\\&/, ""); gsub(/\\e/, "\\"); gsub(/\\-/, "-"); gsub(/\\\(dq/, "\""); gsub(/\\\(aq/, "\047"); print >file }
	' "$1"
}

# coroutine_flags FILE: the options with which a program with coroutines compiles; nothing for another program.
coroutine_flags() {
	grep -q 'co_await\|co_return\|^#include <evparallel/coroutine\.hpp>' "$1" || return 0
	if grep -q '^#include <evparallel/asio\.hpp>' "$1"; then echo "$asio_coroutines"; else echo "$coroutines"; fi
}

# lacks_library FILE: the file includes the header for a library that this build has not found, or has coroutines, which
# it has not found.
lacks_library() {
	if grep -q 'co_await\|co_return\|^#include <evparallel/coroutine\.hpp>' "$1"; then
		test -n "$(coroutine_flags "$1")" || return 0
	fi
	for program in $left_out; do
		header=${program##*/}
		header=${header%.t}
		! grep -q -e "^#include <evparallel/$header\.hpp>" -e "^#include <event2/$header\.h>" "$1" || return 0
	done
	return 1
}

# empty TEXT FILE: passes if the file with complaints is empty.
empty() {
	if test -s "$2"; then not_ok "$1" "$2"; else ok "$1"; fi
}

# looked_at COUNT WHAT: a gate that has checked nothing must fail.
looked_at() {
	if test "$1" -gt 0; then ok "looked at $1 $2"; else not_ok "looked at no $2"; fi
}

tool() {
	command -v "$1" >/dev/null || { echo "Bail out! $1 is missing: make deps installs it"; exit 99; }
}

finish() {
	echo "1..$points"
	test ! -s "$tmp/failed" || { echo '# ---- failed ----'; cat "$tmp/failed"; }
}
