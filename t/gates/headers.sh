#!/bin/sh
# Every header compiles alone, and may be included twice. With options that the library does not support, each public
# header says in one error which option to use.
. "${srcdir:-.}/t/lib/gate.sh"

# is_left_out HEADER: it is for a library that this build has not found.
is_left_out() {
	file=${1##*/}
	case " $left_out " in *" t/outside/${file%.hpp}.t "*) return 0 ;; esac
	return 1
}

headers=0
first=0
for header in "$srcdir"/include/evparallel/*.hpp "$srcdir"/include/evparallel/detail/*.hpp include/evparallel/version.hpp "$srcdir"/src/*/*.hpp; do
	! is_left_out "$header" || continue
	case $header in
	include/evparallel/version.hpp) name='<evparallel/version.hpp>' ;;  # made in the build tree
	*/version.hpp) continue ;;
	"$srcdir"/src/*) name="\"${header#"$srcdir"/src/}\"" ;;
	*) name="<${header#"$srcdir"/include/}>" ;;
	esac
	# The build of a source that includes it first has compiled it alone.
	case $header in "$srcdir"/src/*)
		source=${header%.hpp}.cpp
		if test -f "$source" && test "$(grep -m 1 '^#include' "$source")" = "#include $name"; then
			first=$((first + 1))
			continue
		fi
		;;
	esac
	headers=$((headers + 1))
	printf '%s\n' "$name" >"$tmp/name.$headers"
	printf '#include %s\n' "$name" "$name" >"$tmp/twice.$headers.cpp"
	standard=
	case $name in */coroutine*.hpp*)
		test -n "$coroutines" || { headers=$((headers - 1)); continue; }
		standard=$coroutines
		;;
	esac
	queue $compile $standard -I. -I"$srcdir/src" -fsyntax-only "$tmp/twice.$headers.cpp"
done

# unsupported TEXT COMPILER OPTION...: TEXT is the first error of each public header of $public, and there is at most one
# other error, by which the compiler stops.
: >"$tmp/unsupported"
unsupported() {
	text=$1
	shift
	for header in $public; do
		echo "#include <${header#"$srcdir"/include/}>" >"$tmp/unsupported.$queued.cpp"
		queue "$@" -fsyntax-only "$tmp/unsupported.$queued.cpp"
		echo "$queued $text" >>"$tmp/unsupported"
	done
}
all=
for header in "$srcdir"/include/evparallel/*.hpp; do
	case $header in */version.hpp) continue ;; esac # only macros
	is_left_out "$header" || all="$all $header"
done
for compiler in g++ clang++; do
	command -v $compiler >/dev/null || continue
	options="${compile#"$CXX"} -I."
	public=$all
	unsupported 'evparallel needs C++17: compile with -std=c++17' $compiler $options -std=c++14
	unsupported 'evparallel needs exceptions: compile without -fno-exceptions' $compiler $options -std=c++17 -fno-exceptions
	# Another C++ library need not be there, so the program only claims to use it.
	if grep -q '^#define EVPARALLEL_LIBCXX 0$' include/evparallel/version.hpp; then
		unsupported 'evparallel was built with libstdc++: compile without -stdlib=libc++' $compiler $options -std=c++17 -D_LIBCPP_VERSION=14000
		public=$srcdir/include/evparallel/coroutine.hpp
		unsupported 'evparallel: coroutine.hpp needs a compiler with coroutines: -std=c++20' $compiler $options -std=c++17
	else
		unsupported 'evparallel was built with libc++: compile with clang++ -stdlib=libc++' $compiler $options -std=c++17
	fi
done
run_queue
for n in $(seq "$headers"); do checked "$(cat "$tmp/name.$n")" "$n"; done
looked_at "$headers" headers
looked_at "$first" 'headers that their sources include first'
find "$srcdir/include" "$srcdir/src" -name '*.hpp' -exec grep -L '^#pragma once$' {} + >"$tmp/not_once"
empty 'each may be included twice' "$tmp/not_once"

while read -r job text; do
	grep -E ' (fatal )?error: ' "$(said_by "$job")" >"$tmp/errors" || :
	if test "$(status_of "$job")" = 0; then
		echo "$(cat "$tmp/job.$job"): accepted"
	elif test "$(sed -n 1p "$tmp/errors" | grep -c -F -e "$text")" = 0; then
		echo "$(cat "$tmp/job.$job"): the first error is not: $text"
		sed 's/^/  /' "$tmp/errors"
	elif test "$(wc -l <"$tmp/errors")" -gt 2; then
		echo "$(cat "$tmp/job.$job"): $(wc -l <"$tmp/errors") errors, and not only: $text"
	fi
done <"$tmp/unsupported" >"$tmp/other"
looked_at "$(wc -l <"$tmp/unsupported")" 'refusals of unsupported options'
empty 'one error says which option to use' "$tmp/other"

# Two inline members of the same name are one to the linker: which one is called would be chance.
find "$srcdir/include" "$srcdir/src" -name '*.hpp' -exec grep -hoE '^ *(class|struct|enum class) (EVPARALLEL_API )?[A-Za-z_0-9]+( final)?( :.*)? \{' {} + |
	grep -v '^ ' | sed -E 's/^(enum class|class|struct) (EVPARALLEL_API )?([A-Za-z_0-9]+).*/\3/' | sort >"$tmp/types"
looked_at "$(wc -l <"$tmp/types")" types
uniq -d "$tmp/types" >"$tmp/twice"
empty 'no type is defined twice' "$tmp/twice"
finish
