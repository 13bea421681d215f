#!/bin/sh
# The ABI is that of t/gates/library.abi, the exported functions of the built library, and of t/gates/headers.abi, the
# types that it shares with programs (t/gates/abi.cpp). Both are written by abidw; with --write this only writes them, and
# `make abi` runs that. CONTRIBUTING.md has the rules.
. "${srcdir:-.}/t/lib/gate.sh"

# The files depend on the processor and, in names of private members of std::, on the compiler.
processor=x86_64
compiler='g++ 12'
reason=
case $(uname -m) in $processor) ;; *) reason="the files are those of $processor" ;; esac
test -z "$audit" || reason='sanitizers change what is exported'
# $CXX has options, too.
$CXX -dM -E -x c++ /dev/null >"$tmp/macros" 2>&1 || :
if grep -q '__clang__' "$tmp/macros" || ! grep -q "__GNUC__ ${compiler##* }\$" "$tmp/macros"; then reason="the files are those of $compiler"; fi
command -v abidw >/dev/null && command -v abidiff >/dev/null || reason='no abidw: make deps installs abigail-tools'
if test -n "$reason"; then
	test "${1-}" != --write || { echo "abi: $reason" >&2; exit 1; }
	echo "1..0 # SKIP $reason"
	exit
fi

# describe LIBRARY SUPPRESSIONS: without what differs between two builds of one source.
describe() {
	abidw --suppressions "$srcdir/t/gates/$2" --headers-dir "$srcdir/include" --headers-dir include --drop-private-types \
		--exported-interfaces-only --no-show-locs --no-comp-dir-path --no-corpus-path --no-parameter-names --no-elf-needed \
		--type-id-style hash "$1" | sed "s|path='[^']*/src/|path='src/|; s|path='[^']*/t/gates/|path='t/gates/|"
}
# A class is described in full here even if this library does not define its virtual functions. Nothing else is exported:
# the compiler, and its -O, decide which inline functions there are.
types() {
	echo '{ global: public_types; shared_types; local: *; };' >"$tmp/map"
	$compile -g -O0 -femit-class-debug-always -shared -fPIC -Wl,-soname,"$(soname)" -Wl,--version-script="$tmp/map" -o "$tmp/types.so" "$srcdir/t/gates/abi.cpp" &&
		describe "$tmp/types.so" abi.suppr
}
soname() { readlink .libs/libevparallel.so; }
functions() { describe .libs/libevparallel.so library.suppr; }

if test "${1-}" = --write; then
	types >"$tmp/headers.abi"
	functions >"$tmp/library.abi"
	cp "$tmp/headers.abi" "$tmp/library.abi" "$srcdir/t/gates"
	exit
fi

# same OLD NEW: no difference at all, also none that abidiff takes for harmless: a new enumerator is one.
same() { abidiff --harmless --no-show-locs "$@"; }
check_abi() {
	if test ! -s "$tmp/$1"; then not_ok "abidw describes $2" "$tmp/said"; return; fi
	check "the ABI of $2 is that of t/gates/$1 (in a new minor version: make abi)" same "$srcdir/t/gates/$1" "$tmp/$1"
}
types >"$tmp/headers.abi" 2>"$tmp/said" || :
check_abi headers.abi 'the headers'
if readelf -S .libs/libevparallel.so | grep -q '\.debug_info'; then
	functions >"$tmp/library.abi" 2>"$tmp/said" || :
	check_abi library.abi 'the library'
else
	ok 'the ABI of the library # SKIP it is built without -g'
fi

# Every type of the headers is described. Not those of coroutines and of other loops, which are compiled into the program.
awk '/^template/ { template = 1 } /^(struct|class|enum class) .*\{/ && !template { sub(/ *(final)? *[:{].*/, ""); print $NF } /[;{]/ && !/^template/ { template = 0 }' \
	$(ls "$srcdir"/include/evparallel/*.hpp "$srcdir"/include/evparallel/detail/*.hpp | grep -v '/\(asio\|coroutine[a-z_]*\|glib\|uv\)\.hpp$') | sort -u >"$tmp/public"
looked_at "$(wc -l <"$tmp/public")" 'public types'
while read -r type; do
	grep -q -e "class-decl name='$type' size" -e "enum-decl name='$type'" "$tmp/headers.abi" || echo "$type"
done <"$tmp/public" >"$tmp/forgotten"
empty 't/gates/abi.cpp has every public type' "$tmp/forgotten"

# refused TEXT FILE SED: a change of the described ABI, as a change of a header or a source makes it, is found.
refused() {
	sed "$3" "$srcdir/t/gates/$2" >"$tmp/changed.abi"
	if cmp -s "$srcdir/t/gates/$2" "$tmp/changed.abi"; then not_ok "$1: the change is not made"; return; fi
	status=0
	same "$srcdir/t/gates/$2" "$tmp/changed.abi" >"$tmp/said" 2>&1 || status=$?
	# Bit 2: a change of the ABI. Bits 0 and 1: abidiff has failed.
	if test $((status & 7)) = 4; then ok "$1 is refused"; else not_ok "$1 is not refused" "$tmp/said"; fi
}
refused 'a larger struct' headers.abi "s/\(class-decl name='Options' size-in-bits=\)'[0-9]*'/\1'99968'/"
refused 'a struct without one of its members' headers.abi "/class-decl name='Limits'/,/<.class-decl>/{/<data-member/{N;N;/'memory'/d}}"
refused 'a moved virtual function' headers.abi "/class-decl name='PoolInterface'/,/<.class-decl>/s/vtable-offset='3'/vtable-offset='2'/"
refused 'a new enumerator' headers.abi "s/.*<enumerator name='deadline'.*/&<enumerator name='another' value='99'\/>/"
refused 'another type of a member' headers.abi "/class-decl name='Limits'/,/<.class-decl>/s/name='memory' type-id='[^']*'/name='memory' type-id='$(sed -n "s/.*type-decl name='int' .*id='\([^']*\)'.*/\1/p" "$srcdir/t/gates/headers.abi" | head -n 1)'/"
refused 'a function that is not exported any more' library.abi "/elf-symbol name='_ZN10evparallel7Reactor3runEv'/d"
refused 'another soname' library.abi "s/soname='[^']*'/soname='libevparallel-9.9.so'/"
finish
