#!/bin/sh
# On a kernel without memfd_create, its users are refused by name, and everything else works. A
# preloaded library simulates such a kernel.
. "${srcdir:-.}/t/lib/gate.sh"

shim=$PWD/t/lib/.libs/no_memfd.so
if test -n "$audit"; then
	ok 'without memfd_create # SKIP a sanitizer must be loaded before any other library'
	finish
	exit
fi

for program in inside/preflight inside/fd inside/freeze inside/freezing outside/frozen outside/descriptors; do
	LD_PRELOAD="$shim" "./t/$program.t" >"$tmp/said.program" 2>&1 || :
	if grep -q '^not ok\|^Bail out' "$tmp/said.program" || ! grep -q '^ok' "$tmp/said.program"; then
		not_ok "$program" "$tmp/said.program"
	else
		ok "$program"
	fi
	grep '^ok.* # SKIP no memfd' "$tmp/said.program" >>"$tmp/skipped" || :
done
looked_at "$(wc -l <"$tmp/skipped")" 'skipped cases that need memfd_create'
finish
