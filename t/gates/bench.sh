#!/bin/sh
# The benchmarks compile. `make bench` builds and runs them.
. "${srcdir:-.}/t/lib/gate.sh"

ls "$srcdir"/bench/*.cpp >"$tmp/files"
precompile all $compile $warnings
while read -r file; do queue $compile $warnings $(with all "$file") -fsyntax-only "$file"; done <"$tmp/files"
run_queue
job=0
while read -r file; do
	job=$((job + 1))
	checked "${file##*/} compiles" "$job"
done <"$tmp/files"
looked_at "$job" benchmarks
finish
