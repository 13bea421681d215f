#!/bin/sh
# The names that the shared library exports are exactly those of t/gates/symbols.txt. With --list this only prints them;
# `make symbols` writes the list that way.
. "${srcdir:-.}/t/lib/gate.sh"

# Only names of this library: the compiler chooses which instances of std:: are in the library. Some of those begin with
# their return type, which may be a type of this library.
names() {
	${NM:-nm} -DC --defined-only .libs/libevparallel.so | sed 's/^[0-9a-f]* *[A-Za-z] //' |
		grep -v '^evparallel::[^(<,]* std::'
}
exported() {
	names | grep -E '^((typeinfo|typeinfo name|vtable) for )?evparallel::' | sort -u
}

if test "${1-}" = --list; then
	exported
	exit
fi

tool "${NM%% *}"
exported >"$tmp/exported" || :
looked_at "$(wc -l <"$tmp/exported")" 'exported names'
check 'the exported names are those of t/gates/symbols.txt (if the change is intended: make symbols)' diff -u "$srcdir/t/gates/symbols.txt" "$tmp/exported"

# libevparallel-throw, which wraps a function of the C++ runtime for programs that ask for it, does nothing else.
${NM:-nm} -DC --defined-only .libs/libevparallel-throw.so | sed 's/^[0-9a-f]* *[A-Za-z] //' >"$tmp/exported_by_throw"
echo __cxa_throw >"$tmp/meant"
check 'libevparallel-throw exports only __cxa_throw' diff "$tmp/meant" "$tmp/exported_by_throw"

# No other name may pass the map.
names | grep -v -x -F -f "$tmp/exported" >"$tmp/strangers" || :
empty 'no other name is exported' "$tmp/strangers"
finish
