#!/bin/sh
# The benchmarks compile. `make bench` builds and runs them. Where the warnings of the library are errors the examples
# have none of them, either.
. "${srcdir:-.}/t/lib/gate.sh"

# Nothing is linked, and clang warns about unused libraries then.
png_headers=
for word in $png; do case $word in -l* | -L*) ;; *) png_headers="$png_headers $word" ;; esac; done

ls "$srcdir"/bench/*.cpp >"$tmp/files"
test -z "$warnings" || ls "$srcdir"/examples/*.cpp "$srcdir"/examples/tutorial/*.cpp >>"$tmp/files"
precompile all $compile $warnings
while read -r file; do
	! lacks_library "$file" || continue
	test "${file##*/}" != render.cpp || test -n "$png" || continue
	queue $compile $warnings $(coroutine_flags "$file") $png_headers $(with all "$file") -fsyntax-only "$file"
	echo "${file#"$srcdir"/}" >>"$tmp/programs"
done <"$tmp/files"
run_queue
job=0
while read -r program; do
	job=$((job + 1))
	checked "$program compiles" "$job"
done <"$tmp/programs"
looked_at "$job" programs
finish
