#!/bin/sh
# On a kernel without memfd_create, what needs it is refused by name, and the rest works.
# A preloaded library stands in for such a kernel.
. "${srcdir:-.}/t/lib/gate.sh"

shim=$PWD/t/lib/.libs/no_memfd.so
if test -n "$audit"; then
	ok 'without memfd_create # SKIP a sanitizer must be loaded before any other library'
	finish
	exit
fi

for program in inside/preflight inside/fd inside/freeze inside/freezing outside/frozen outside/descriptors; do
	LD_PRELOAD="$shim" "./t/$program.t" >"$tmp/said.$$" 2>&1 || :
	if grep -q '^not ok\|^Bail out' "$tmp/said.$$" || ! grep -q '^ok' "$tmp/said.$$"; then
		not_ok "$program" "$tmp/said.$$"
	else
		ok "$program: $(grep -c '^ok' "$tmp/said.$$") cases, $(grep -c '^ok.* # SKIP no memfd' "$tmp/said.$$") of them skipped without it"
	fi
done
finish
