#!/bin/sh
# What users must not write is refused by the compiler, with a text that says what to do.
# A file's first line is "// expect: TEXT". With EVPARALLEL_TEST_ACCEPTED defined it is right, and compiles:
# so it was refused for that one thing and not for a slip of the pen.
. "${srcdir:-.}/t/lib/gate.sh"

ls "$srcdir"/t/gates/refused/*.cpp >"$tmp/files"
while read -r file; do
	queue $compile -fsyntax-only "$file"
	queue $compile -DEVPARALLEL_TEST_ACCEPTED -fsyntax-only "$file"
done <"$tmp/files"
run_queue

job=1
while read -r file; do
	name=${file##*/}
	expect=$(sed -n '1s|^// expect: ||p' "$file")
	if test -z "$expect"; then
		not_ok "$name: its first line is not // expect: TEXT"
	elif test "$(status_of "$job")" = 0; then
		not_ok "$name: was accepted"
	elif grep -q -F -e "$expect" "$(said_by "$job")"; then
		ok "$name: refused with: $expect"
	else
		not_ok "$name: refused, but not with: $expect" "$(said_by "$job")"
	fi
	checked "$name: is right otherwise" $((job + 1))
	job=$((job + 2))
done <"$tmp/files"
looked_at "$(wc -l <"$tmp/files")" 'refused programs'
finish
