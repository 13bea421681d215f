#!/bin/sh
# A program that uses most of the library works with each compiler, in each standard and each mode; the table at the end
# has a row for each compiler and standard. The library is built with libc++, too, and some test programs pass there; with
# MODES=table they are left out. Takes minutes, and has a goal of its own, `make check-modes`, which keeps that build in
# libcxx/.
. "${srcdir:-.}/t/lib/gate.sh"
if test -n "$audit"; then
	echo '1..0 # SKIP: a library with sanitizers needs programs with them'
	exit
fi

# Not a part of `make deps`, as only this gate needs them.
missing=
for package in g++-12 clang-14 libclang-rt-14-dev llvm-14-linker-tools clang-16 libclang-rt-16-dev llvm-16-linker-tools \
	libc++-16-dev libc++abi-16-dev libjemalloc2; do
	dpkg-query -W -f '${Status}\n' $package 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
if test -n "$missing"; then
	echo "Bail out! Please run: apt-get install$missing"
	exit 99
fi
# A build with ccache has it here, too.
case $CXX in ccache\ *) launcher='ccache ' ;; *) launcher= ;; esac

# ---- the library with libc++ ---------------------------------------------------------------------

libcxx='clang++-16 -stdlib=libc++'

# Another build needs a copy of the tree, which may be configured itself. Files keep their times, so that those that have
# not changed are not compiled again.
make_in_libcxx() (
	unset CXX LDFLAGS MAKEFLAGS MAKELEVEL
	"$MAKE" -C libcxx/build -j"$(nproc)" "$@"
)
rebuild() {
	rm -rf libcxx/source &&
		mkdir -p libcxx/build &&
		env MAKEFLAGS= MAKELEVEL= "$MAKE" -s distdir distdir=libcxx/source &&
		chmod -R u+w libcxx/source &&
		{ test -f libcxx/build/GNUmakefile || (cd libcxx/build && ../source/configure CXX="$launcher$libcxx" CXXFLAGS='-O1 -g0'); } &&
		make_in_libcxx libevparallel.la
}
check 'the library is built with libc++' rebuild

# ---- the modes -----------------------------------------------------------------------------------

warnings='-Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion'
headers="-I$srcdir/include $($PKG_CONFIG --cflags nlohmann_json)"
source=$srcdir/t/gates/modes.cpp
jemalloc=$(PATH=$PATH:/usr/sbin:/sbin ldconfig -p | sed -n 's|.* => \(.*/libjemalloc\.so\.2\)$|\1|p' | head -n 1)
export tmp warnings headers source libs

# One object, and the programs that are linked with it. Arguments: the row, the build of the library, the compiler and the
# options for the object; then for each program its column, options for the linker, and a library that is preloaded.
cat >"$tmp/programs" <<'END'
row=$1 build=$2 compiler=$3 options=$4
shift 4
ulimit -S -c 0
name=$tmp/$row.${1#-}
result() { echo "$2" >"$tmp/$row.cell.$1"; }
works=ok
status=0
if ! $compiler $warnings $options -I"$build/include" $headers -c -o "$name.o" "$source" >"$name.said" 2>&1; then
	works=failed
elif grep 'warning: ' "$name.said"; then
	works=warned
	status=1
fi
while test $# -gt 0; do
	case $2 in
	*-static*) library="$build/.libs/libcore.a $libs $static_libs" ;;
	*) library="-L$build/.libs -Wl,-rpath,$build/.libs -levparallel" ;;
	esac
	if test $works != failed && $compiler $options -o "$name" "$name.o" $2 $library >>"$name.said" 2>&1 &&
		timeout -k 5 300 env ${3:+LD_PRELOAD="$3"} "$name" </dev/null >>"$name.said" 2>&1; then
		result "$1" $works
	else
		result "$1" failed
		echo "$1 failed:"
		cat "$name.said"
		status=1
	fi
	shift 3
done
exit $status
END

# A mode that the headers refuse, with one error and the end of the compilation. Arguments: the row, the build of the
# library, the compiler and its options, the column, and the text.
cat >"$tmp/refusal" <<'END'
row=$1 build=$2 compiler=$3 column=$4 text=$5
said=$tmp/$row.${column#-}.said
result() { echo "$1" >"$tmp/$row.cell.$column"; }
if $compiler -I"$build/include" $headers -fsyntax-only "$source" >"$said" 2>&1; then
	result accepted
elif grep 'error: ' "$said" >"$said.errors" && test "$(wc -l <"$said.errors")" -le 2 && sed -n 1p "$said.errors" | grep -q -F -e "$text"; then
	result refused
	exit
else
	result failed
fi
cat "$said"
exit 1
END

# row BUILD COMPILER NAME STANDARD STATIC-LIBRARIES OTHER-LIBRARY TEXT: one row of the table. Static programs need the
# libraries; the option for the other C++ library is refused with the text.
: >"$tmp/rows"
row() {
	row=$(wc -l <"$tmp/rows")
	build=$1
	compiler="$launcher$2 -std=$4"
	name="$3 $4"
	static_libs=$5
	echo "$name" >>"$tmp/rows"
	programs '-O2, -pie, -static, -static-pie, jemalloc' '-O2 -fPIE' \
		-O2 '' '' -pie -pie '' -static '-no-pie -static' '' -static-pie -static-pie '' jemalloc '' "$jemalloc"
	programs -O0 -O0 -O0 '' ''
	programs -O1 -O1 -O1 '' ''
	programs -O3 -O3 -O3 '' ''
	programs -flto '-O2 -flto' -flto '' ''
	programs -no-pie '-O1 -fno-pie' -no-pie -no-pie ''
	programs -fno-rtti '-O1 -fno-rtti' -fno-rtti '' ''
	# clang 14 cannot compile coroutines with the check of functions.
	case $name in 'clang 14 c++2'*) functions=-fno-sanitize=function ;; *) functions= ;; esac
	programs 'the address and undefined behaviour sanitizers' \
		"-O1 -fsanitize=address,undefined -fno-sanitize-recover=all $functions" asan,ubsan '' ''
	programs 'the thread sanitizer' '-O1 -fsanitize=thread' tsan '' ''
	refusal -fno-exceptions -fno-exceptions 'evparallel needs exceptions: compile without -fno-exceptions'
	test -z "$6" || refusal "$6" other-library "$7"
}

# programs TEXT OPTIONS PROGRAM...
programs() {
	echo "$name: $1" >>"$tmp/texts"
	options=$2
	shift 2
	queue env "static_libs=$static_libs" sh "$tmp/programs" "$row" "$build" "$compiler" "$options" "$@"
}

# refusal OPTION COLUMN TEXT
refusal() {
	echo "$name: $1 is refused" >>"$tmp/texts"
	queue sh "$tmp/refusal" "$row" "$build" "$compiler $1" "$2" "$3"
}

here=$PWD
for standard in ${STANDARDS:-c++17 c++20 c++2b}; do
	row "$here" g++-12 'g++ 12' $standard '' '' ''
	row "$here" clang++-14 'clang 14' $standard '' '' ''
	row "$here" clang++-16 'clang 16' $standard '' -stdlib=libc++ 'evparallel was built with libstdc++: compile without -stdlib=libc++'
	row "$here/libcxx/build" "$libcxx" 'clang 16, libc++' $standard -lc++abi -stdlib=libstdc++ \
		'evparallel was built with libc++: compile with clang++ -stdlib=libc++'
done
# The library has no thread sanitizer.
TSAN_OPTIONS=ignore_noninstrumented_modules=1
export TSAN_OPTIONS
run_queue

job=0
while read -r text; do
	job=$((job + 1))
	checked "$text" "$job"
done <"$tmp/texts"
looked_at "$job" 'groups of modes'

row=0
columns='-O0 -O1 -O2 -O3 -flto -pie -no-pie -static -static-pie -fno-rtti asan,ubsan tsan jemalloc -fno-exceptions other-library'
{
	echo "|$columns" | tr ' ' '|'
	while read -r name; do
		for column in $columns; do
			if test -f "$tmp/$row.cell.$column"; then cat "$tmp/$row.cell.$column"; else echo -; fi
		done | paste -s -d '|' | sed "s/^/$name|/"
		row=$((row + 1))
	done <"$tmp/rows"
} | awk -F'|' '
	{ for (i = 1; i <= NF; i++) { cell[NR, i] = $i; if (length($i) > width[i]) width[i] = length($i) } }
	END {
		for (n = 1; n <= NR; n++) {
			line = "#"
			for (i = 1; i <= NF; i++) line = line sprintf(" %-" width[i] "s", cell[n, i])
			sub(/ +$/, "", line)
			print line
		}
	}'

# ---- tests with libc++ ---------------------------------------------------------------------------

# The Boost.Test of the system is built with libstdc++, so that its headers alone are used.
if test "${MODES-}" != table; then
	tests='t/inside/io.t t/outside/run.t t/outside/process.t t/outside/pool.t'
	check "with libc++: $tests" make_in_libcxx check TESTS="$tests" check_PROGRAMS="$tests" check_SCRIPTS= \
		check_LTLIBRARIES=t/lib/libtesting.la
fi
finish
