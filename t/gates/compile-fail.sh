#!/bin/sh
# What users must not write is refused by the compiler, with a text that says what to do.
# A file's first line is "// expect: TEXT". With EVPARALLEL_TEST_ACCEPTED defined it is right, and compiles:
# so it was refused for that one thing and not for a slip of the pen.
. "${srcdir:-.}/t/lib/gate.sh"

refused=0
for file in "$srcdir"/t/gates/refused/*.cpp; do
	test -f "$file" || continue
	refused=$((refused + 1))
	name=${file##*/}
	expect=$(sed -n '1s|^// expect: ||p' "$file")
	if test -z "$expect"; then
		not_ok "$name: its first line is not // expect: TEXT"
	elif $compile -fsyntax-only "$file" >"$tmp/said" 2>&1; then
		not_ok "$name: was accepted"
	elif grep -q -F -e "$expect" "$tmp/said"; then
		ok "$name: refused with: $expect"
	else
		not_ok "$name: refused, but not with: $expect" "$tmp/said"
	fi
	check "$name: is right otherwise" $compile -DEVPARALLEL_TEST_ACCEPTED -fsyntax-only "$file"
done
looked_at "$refused" 'refused programs'
finish
