#!/bin/sh
# The compiler refuses invalid uses, with a text that names the remedy. The first line of a file is "// expect: TEXT".
# With EVPARALLEL_TEST_ACCEPTED defined the file is valid and compiles: so the compiler refuses the intended error and
# not another mistake in the file.  A file whose second line is "// flags: coroutines" needs a compiler that has them;
# one that includes the header for another library needs that library.
. "${srcdir:-.}/t/lib/gate.sh"

is_coroutine() { sed -n 2p "$1" | grep -q '^// flags: coroutines'; }
standard_of() { if is_coroutine "$1"; then echo "$coroutines"; fi; }

for file in "$srcdir"/t/gates/refused/*.cpp; do
	is_coroutine "$file" && test -z "$coroutines" || lacks_library "$file" || echo "$file"
done >"$tmp/files"
precompile all $compile
while read -r file; do
	queue $compile $(standard_of "$file") $(with all "$file") -fsyntax-only "$file"
done <"$tmp/files"

# The valid forms compile together, which reads the headers once: each is in a namespace of its own, unless it opens an
# existing one.
touch "$tmp/alone"
n=0
while read -r file; do
	n=$((n + 1))
	if is_coroutine "$file" || grep -q '^namespace [a-z:]* {\|^template <>\|^#define' "$file"; then
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
while read -r file; do
	queue $compile $(standard_of "$file") $(with all "$file") -DEVPARALLEL_TEST_ACCEPTED -fsyntax-only "$file"
done <"$tmp/alone"
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
