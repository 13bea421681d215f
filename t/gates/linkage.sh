#!/bin/sh
# The same program, position-independent, at fixed addresses, and static: each knows its own functions and those of
# libraries that it has loaded before the snapshot, and no others. Programs without type information work, and those with
# other standard containers than the library do not link.
. "${srcdir:-.}/t/lib/gate.sh"

here=$PWD
early=$here/t/lib/.libs/early.so
late=$here/t/lib/.libs/late.so

cat >"$tmp/own" <<END
lambda: 43
function: 21
C library: 42
END
{
	cat "$tmp/own"
	echo 'early: 84'
	echo "late: unknown function: it is in $late, which was loaded after the snapshot was taken; load it before"
} >"$tmp/with_libraries"

# built NAME COMPILE-FLAGS LINK-FLAGS-AND-LIBRARIES: builds "$tmp/NAME".
built() {
	check "$1: compiles" $compile -I"$srcdir/t/lib" $2 -c -o "$tmp/$1.o" "$srcdir/t/gates/linkage.cpp"
	check "$1: links" $link -o "$tmp/$1" $2 "$tmp/$1.o" $3
}

# answers NAME FILE ARGUMENTS...: its output is that in FILE.
answers() {
	name=$1
	expected=$2
	shift 2
	"$tmp/$name" "$@" >"$tmp/said.$name" 2>&1 || echo "exit status $?" >>"$tmp/said.$name"
	check "$name: answers${1+, and names the library that was loaded late}" diff -u "$expected" "$tmp/said.$name"
}

# has_type NAME NUMBER WORD: checks e_type in its ELF header, so that a flag without effect is noticed.
has_type() {
	type=$(od -An -t u2 -j 16 -N 2 "$tmp/$1" | tr -d ' ')
	if test "$type" = "$2"; then ok "$1: $3"; else not_ok "$1: its ELF type is ${type:-none}, not $2"; fi
}

# no_library_for NAME COMPILE-FLAGS EXPLANATION: containers of another kind than the library's do not link, and the one
# symbol that is missing explains it. The flags come first, since they name a folder with another version.hpp.
no_library_for() {
	check "$1: compiles" $CXX $2 ${compile#"$CXX"} -I"$srcdir/t/lib" -c -o "$tmp/$1.o" "$srcdir/t/gates/linkage.cpp"
	if $link -o "$tmp/$1" "$tmp/$1.o" $shared >"$tmp/said.$1" 2>&1; then
		not_ok "$1: links, but must not"
	elif grep -q "undefined reference to .evparallel::detail::$3()" "$tmp/said.$1"; then
		ok "$1: does not link, and the linker gives the reason"
	else
		not_ok "$1: the linker gives another reason" "$tmp/said.$1"
	fi
}

# library_for NAME COMPILE-FLAGS EXPLANATION: a library of that kind defines the symbol that the programs miss.
library_for() {
	check "$1: the file that says of which kind the library is compiles" \
		$CXX $2 ${compile#"$CXX"} -c -o "$tmp/kind.$1.o" "$srcdir/src/base/containers.cpp"
	$NM -C "$tmp/kind.$1.o" >"$tmp/names.$1"
	check "$1: a library of that kind defines the symbol" grep -q " T evparallel::detail::$3()\$" "$tmp/names.$1"
}

shared="-L.libs -Wl,-rpath,$here/.libs -levparallel -ldl"
built pie -fPIE "-pie $shared"
has_type pie 3 'is position-independent'
answers pie "$tmp/own"
answers pie "$tmp/with_libraries" "$early" "$late"

built fixed '-fno-pie -fno-pic' "-no-pie $shared"
has_type fixed 2 'is not'
answers fixed "$tmp/own"
answers fixed "$tmp/with_libraries" "$early" "$late"

# Objects of a program without type information, which the library must not ask for their type: exceptions, and a buffer
# of a stream. The program of t/gates/modes.sh has both. AddressSanitizer puts guards around the name of a type in the
# library; if the program has that name, too, they cover what stands beside it there.
if test -z "$audit"; then
	check 'no-rtti: compiles' $compile -O0 -fno-rtti -c -o "$tmp/no-rtti.o" "$srcdir/t/gates/modes.cpp"
	check 'no-rtti: links' $link -o "$tmp/no-rtti" "$tmp/no-rtti.o" $shared
	runs 'no-rtti: works' "$tmp/no-rtti"
fi

# There is no libc++ here, so that the program only claims to use it. The headers of a library that was built with libstdc++
# refuse that, and so the program has those of another build.
mkdir -p "$tmp/other/evparallel"
sed 's/^#define EVPARALLEL_LIBCXX .*/#define EVPARALLEL_LIBCXX 1/' include/evparallel/version.hpp >"$tmp/other/evparallel/version.hpp"
while read -r name flags explanation; do
	flags=$(echo "$flags" | tr , ' ')
	no_library_for "$name" "$flags" "$explanation"
	library_for "$name" "$flags" "$explanation"
done <<END
debug -D_GLIBCXX_DEBUG this_program_is_built_with_GLIBCXX_DEBUG_but_libevparallel_is_not
old_strings -D_GLIBCXX_USE_CXX11_ABI=0 this_program_is_built_with_GLIBCXX_USE_CXX11_ABI_0_but_libevparallel_is_not
libcxx -D_LIBCPP_VERSION=14000,-I$tmp/other this_program_uses_libcxx_but_libevparallel_was_built_with_libstdcxx
END

case $link in
*-fsanitize=*) ok 'static # SKIP a program with sanitizers cannot be static' ;;
*)
	built static '-fno-pie -fno-pic -DEVPARALLEL_TEST_STATIC' "-static .libs/libcore.a $libs"
	answers static "$tmp/own"
	;;
esac
finish
