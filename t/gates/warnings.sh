#!/bin/sh
# Programs that use the library compile without a warning, with each compiler that is installed: examples/, callbacks of
# each kind, and the examples of the manual, which t/gates/man.sh compiles with the compiler of this build. So do all
# headers, and callbacks, in later standards.
. "${srcdir:-.}/t/lib/gate.sh"
if test -n "$audit"; then
	echo '1..0 # SKIP: under a sanitizer compilers warn of its own code'
	exit
fi

for page in "$srcdir"/man/*.[37]; do
	examples_of "$page" "$tmp/${page##*/}"
done

# Nothing is linked, and clang warns about unused libraries then.
png_headers=
for word in $png; do case $word in -l* | -L*) ;; *) png_headers="$png_headers $word" ;; esac; done

# all_headers STANDARD: writes a program that includes all public headers.
all_headers() {
	for header in "$srcdir"/include/evparallel/*.hpp; do
		case $1,$header in c++17,*/coroutine.hpp) continue ;; esac
		echo "#include <evparallel/${header##*/}>"
	done >"$tmp/all_headers.one"
	while read -r line; do
		echo "$line" >"$tmp/line"
		lacks_library "$tmp/line" || echo "$line"
	done <"$tmp/all_headers.one" >"$tmp/$1.cc"
}
for standard in c++17 c++20 c++2b; do all_headers $standard; done

compilers=0
for compiler in g++ clang++; do
	command -v $compiler >/dev/null || continue
	compilers=$((compilers + 1))
	case " $compile" in *[\ /]"$compiler "*) manual= ;; *) manual=$(ls "$tmp"/*.cpp) ;; esac
	# The optimiser of g++ warns, too; that of clang does not. What it sees in examples it sees in those of the manual.
	case $compiler in clang++) how=-fsyntax-only ;; *) how='-c -o /dev/null' ;; esac
	precompile $compiler $compiler -std=c++17 ${compile#"$CXX"} $png_headers $strict
	for file in "$srcdir"/examples/*.cpp "$srcdir"/examples/tutorial/*.cpp "$srcdir"/t/gates/callbacks.cpp $manual; do
		name=${file#"$srcdir"/}
		name=${name#"$tmp"/}
		! lacks_library "$file" || continue
		case $name in examples/render.cpp) test -n "$png" || continue ;; esac
		act=-fsyntax-only
		case $name in */callbacks.cpp) act=$how ;; esac
		queue $compiler -std=c++17 $(coroutine_flags "$file") ${compile#"$CXX"} $png_headers $strict $(with $compiler "$file") $act "$file"
		echo "$name by $compiler" >>"$tmp/programs"
	done
	for standard in c++17 c++20 c++2b; do
		queue $compiler -std=$standard ${compile#"$CXX"} -I. $strict -fsyntax-only -x c++ "$tmp/$standard.cc"
		echo "all headers in $standard by $compiler" >>"$tmp/programs"
		test $standard != c++17 || continue
		queue $compiler -std=$standard ${compile#"$CXX"} $strict $how "$srcdir/t/gates/callbacks.cpp"
		echo "t/gates/callbacks.cpp in $standard by $compiler" >>"$tmp/programs"
	done
done
run_queue
looked_at "$compilers" compilers

job=0
while read -r program; do
	job=$((job + 1))
	checked "$program" "$job"
done <"$tmp/programs"
looked_at "$job" programs
finish
