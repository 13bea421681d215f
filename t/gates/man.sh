#!/bin/sh
# The manual pages are valid mdoc, and each of their examples compiles, without a warning, and runs to its end.
. "${srcdir:-.}/t/lib/gate.sh"
tool mandoc

pages=0
for page in "$srcdir"/man/*.[1-9]; do
	test -f "$page" || continue
	pages=$((pages + 1))
	check "${page##*/}: mandoc lint" mandoc -T lint -W warning "$page"
done
looked_at "$pages" pages

precompile all $compile $audit $strict
for page in "$srcdir"/man/*.3 "$srcdir"/man/evparallel.7 "$srcdir"/man/evparallel_pitfalls.7 "$srcdir"/man/evparallel_security.7; do
	test -f "$page" || continue
	name=${page##*/}
	examples_of "$page" "$tmp/$name"
	for file in "$tmp/$name"-*.cpp; do
		test -f "$file" && ! lacks_library "$file" || continue
		queue $compile $audit $(coroutine_flags "$file") $strict $(with all "$file") -o "${file%.cpp}" "$file" $LDFLAGS -L.libs -levparallel -Wl,-rpath,"$PWD/.libs" $libs $loop_libs
	done
done
run_queue

job=0
for page in "$srcdir"/man/*.3 "$srcdir"/man/evparallel.7 "$srcdir"/man/evparallel_pitfalls.7 "$srcdir"/man/evparallel_security.7; do
	name=${page##*/}
	examples=0
	for file in "$tmp/$name"-*.cpp; do
		test -f "$file" || continue
		examples=$((examples + 1))
		! lacks_library "$file" || continue
		job=$((job + 1))
		checked "$name: example $examples compiles" "$job"
		runs "$name: example $examples runs" "${file%.cpp}"
	done
	looked_at "$examples" "examples in $name"
done
finish
