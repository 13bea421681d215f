#!/bin/sh
# What users must not write is refused by the compiler, with a text that says what to do.
# A file's first line is "// expect: TEXT". With EVPARALLEL_TEST_ACCEPTED defined it is right, and compiles:
# so it was refused for that one thing and not for a slip of the pen.
. "${srcdir:-.}/t/lib/gate.sh"

ls "$srcdir"/t/gates/refused/*.cpp >"$tmp/files"
while read -r file; do queue $compile -fsyntax-only "$file"; done <"$tmp/files"

# The right forms compile together, which reads the headers once: each in a namespace of its own, unless it opens one
# that exists already.
touch "$tmp/alone"
n=0
while read -r file; do
	n=$((n + 1))
	if grep -q '^namespace [a-z:]* {\|^template <>\|^#define' "$file"; then
		echo "$file" >>"$tmp/alone"
	else
		sed -n '/^#include/p' "$file" >>"$tmp/includes"
		echo "namespace file_$n {" >>"$tmp/bodies"
		echo "#line 1 \"$file\"" >>"$tmp/bodies"
		sed 's/^#include.*//' "$file" >>"$tmp/bodies"
		echo '}' >>"$tmp/bodies"
	fi
done <"$tmp/files"
sort -u "$tmp/includes" | cat - "$tmp/bodies" >"$tmp/accepted.cpp"
queue $compile -DEVPARALLEL_TEST_ACCEPTED -fsyntax-only "$tmp/accepted.cpp"
while read -r file; do queue $compile -DEVPARALLEL_TEST_ACCEPTED -fsyntax-only "$file"; done <"$tmp/alone"
run_queue

job=1
while read -r file; do
	name=${file##*/}
	expect=$(sed -n '1s|^// expect: ||p' "$file")
	if test -z "$expect"; then
		not_ok "$name: the first line must be // expect: TEXT"
	elif test "$(status_of "$job")" = 0; then
		not_ok "$name: the compiler accepted it"
	elif grep -q -F -e "$expect" "$(said_by "$job")"; then
		ok "$name: the compiler refuses it with: $expect"
	else
		not_ok "$name: the compiler refuses it, but not with: $expect" "$(said_by "$job")"
	fi
	job=$((job + 1))
done <"$tmp/files"
checked "$(grep -c '^namespace file_' "$tmp/accepted.cpp") compile in their right form" "$job"
while read -r file; do
	job=$((job + 1))
	checked "${file##*/}: compiles in its right form" "$job"
done <"$tmp/alone"
looked_at "$(wc -l <"$tmp/files")" 'refused programs'
finish
