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

# in_one: writes the files of standard input as one program, which reads the headers once: each is in a namespace of
# its own.
in_one() {
	n=0
	: >"$tmp/includes"
	: >"$tmp/bodies"
	while read -r file; do
		n=$((n + 1))
		sed -n '/^#include/p' "$file" >>"$tmp/includes"
		echo "namespace file_$n {" >>"$tmp/bodies"
		echo "#line 1 \"$file\"" >>"$tmp/bodies"
		sed 's/^#include.*//' "$file" >>"$tmp/bodies"
		echo '}' >>"$tmp/bodies"
	done
	{
		echo '#include <evparallel/evparallel.hpp>'
		sort -u "$tmp/includes"
		cat "$tmp/bodies"
	}
}

# A file that opens a namespace, specialises a template or defines a macro compiles alone.
touch "$tmp/alone" "$tmp/together"
while read -r file; do
	if is_coroutine "$file" || grep -q '^namespace [a-z:]* {\|^template <>\|^#define' "$file"; then
		echo "$file" >>"$tmp/alone"
	else
		echo "$file" >>"$tmp/together"
	fi
done <"$tmp/files"

# The invalid forms compile in a few programs. The last file that g++ or clang++ names up to an error is the one that the
# error is about. A file of which no expected error is found compiles alone.
split -l 12 "$tmp/together" "$tmp/some."
for some in "$tmp"/some.*; do
	in_one <"$some" >"$some.cpp"
	queue $compile $(with all "$some.cpp") -fsyntax-only "$some.cpp"
	echo "$queued" >>"$tmp/batches"
done
in_one <"$tmp/together" >"$tmp/accepted.cpp"
queue $compile $(with all "$tmp/accepted.cpp") -DEVPARALLEL_TEST_ACCEPTED -fsyntax-only "$tmp/accepted.cpp"
accepted=$queued
while read -r file; do
	queue $compile $(standard_of "$file") $(with all "$file") -DEVPARALLEL_TEST_ACCEPTED -fsyntax-only "$file"
done <"$tmp/alone"
run_queue

while read -r batch; do
	awk 'match($0, /refused\/[^ :,]*\.cpp/) { file = substr($0, RSTART + 8, RLENGTH - 8) }
		/ error: / { print file "\t" $0 }' "$(said_by "$batch")"
done <"$tmp/batches" >"$tmp/errors"
# expected FILE: the text that the compiler must say.
expected() { sed -n '1s|^// expect: ||p' "$1"; }
: >"$tmp/found"
while read -r file; do
	expect=$(expected "$file")
	if test -n "$expect" && awk -v file="${file##*/}" '$1 == file' "$tmp/errors" | grep -q -F -e "$expect"; then
		echo "$file" >>"$tmp/found"
	else
		queue $compile $(standard_of "$file") $(with all "$file") -fsyntax-only "$file"
		echo "$queued $file" >>"$tmp/by_itself"
	fi
done <"$tmp/files"
run_queue

while read -r file; do
	ok "${file##*/}: the compiler refuses it with: $(expected "$file")"
done <"$tmp/found"
while read -r job file; do
	name=${file##*/}
	expect=$(expected "$file")
	if test -z "$expect"; then
		not_ok "$name: the first line must be // expect: TEXT"
	elif test "$(status_of "$job")" = 0; then
		not_ok "$name: the compiler accepted it"
	elif grep -q -F -e "$expect" "$(said_by "$job")"; then
		ok "$name: the compiler refuses it with: $expect"
	else
		not_ok "$name: the compiler refuses it, but not with: $expect" "$(said_by "$job")"
	fi
done <"$tmp/by_itself"
checked "$(grep -c '^namespace file_' "$tmp/accepted.cpp") compile in their right form" "$accepted"
job=$accepted
while read -r file; do
	job=$((job + 1))
	checked "${file##*/}: compiles in its right form" "$job"
done <"$tmp/alone"
looked_at "$(wc -l <"$tmp/files")" 'refused programs'
looked_at "$(wc -l <"$tmp/found")" 'of them that compile in a few programs'
finish
