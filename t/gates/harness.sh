#!/bin/sh
# A failed test gives the reason in its last lines: the case, the assertion, the seed, and the processes that are left.
# `make demo` prints one line for each folder that it builds, and one for configuring.
. "${srcdir:-.}/t/lib/gate.sh"
ulimit -S -c 0

# ends TEXT LINES PATTERN...: the last LINES lines of the output match each of these patterns.
ends() {
	text=$1
	tail -n "$2" "$tmp/log" >"$tmp/end"
	shift 2
	for pattern in "$@"; do
		grep -q "$pattern" "$tmp/end" || { echo "no line has: $pattern"; cat "$tmp/end"; } >>"$tmp/missing"
	done
	: >>"$tmp/missing"
	empty "$text" "$tmp/missing"
	rm "$tmp/missing"
}

fail() {
	TEST_TIME_SCALE=0.05 ./t/lib/failing "$@" >"$tmp/log" 2>&1 || :
}

fail
ends 'at the end, case by case' 9 '^# ---- failed: 3 of 4 ----$' \
	'^# numbers_at_random - 1 failed$' '^#   .*failing.cpp(23): error: .*17 != 18' '^#   TEST_SEED=17$' \
	'^# a_wait_in_vain - 2 failed$' '^#   .*failing.cpp(27): error: .*waited in vain for 3 s$' \
	'^# a_process_is_left - left behind: [0-9]* '
fail --run_test=out_of_time
ends 'out of time' 5 '^# in case out_of_time$' '^#   .*failing.cpp(39): error: .*17 != 18' '^#   TEST_SEED=17$' \
	'^#   process [0-9]* .* is left$' '^Bail out! case out_of_time took longer than 1 s$'
fail --run_test=a_crash
ends 'after a crash' 9 '^# in case a_crash$' '^#   .*failing.cpp(47): error: ' '^#   TEST_SEED=17$' \
	'^#   process [0-9]* .* is left$' '^# the test program has crashed$\|^# a sanitizer ends'
fail --run_test=an_exit
ends 'after an exit' 5 '^# in case an_exit$' '^#   .*failing.cpp(53): error: ' '^#   process [0-9]* .* is left$' \
	'^# the test program calls exit()$'

# ---- make demo -----------------------------------------------------------------------------------

# A dry run in which all objects of these folders are out of date.
: >"$tmp/folders"
stamps=
for folder in "$srcdir"/src/*/ "$srcdir"/examples/; do
	folder=${folder#"$srcdir/"}
	folder=${folder%/}
	stamps="$stamps -W $folder/.dirstamp"
	files=$(ls "$srcdir/$folder" | grep -c '\.cpp$')
	test "$folder" != examples || test -n "$png" || files=$((files - 1))
	test "$folder" != examples || test -n "$coroutines" || files=$((files - 1))
	test "$folder" != examples || test -n "$asio_coroutines" || files=$((files - 1))
	test "$folder" != examples || test -n "$glib" || files=$((files - 1))
	echo "building $folder ($files files)" >>"$tmp/folders"
done
sort -o "$tmp/folders" "$tmp/folders"
said_for() {
	V=0 MAKEFLAGS= MAKELEVEL= "$MAKE" -n $stamps "$@" >"$tmp/log" 2>&1 || :
	sed -n -e '/^building /p' -e 's/^echo "  \(CXX[LD]*\).*/\1/p' "$tmp/log" | sort
}
said_for demo >"$tmp/named"
check 'demo names each folder once' diff "$tmp/folders" "$tmp/named"
said_for V=1 demo >"$tmp/named"
empty 'none with V=1' "$tmp/named"
ends 'which shows commands' 1000 'libtool.* -c '
said_for all | uniq >"$tmp/named"
check 'other goals name each file' test "$(tr '\n' ' ' <"$tmp/named")" = 'CXX CXXLD '

# The bootstrap Makefile in a bare tree, with an autoreconf and a configure that print many lines.
mkdir "$tmp/bin" "$tmp/bare"
cp "$srcdir/Makefile" "$tmp/bare"
touch "$tmp/bare/configure.ac" "$tmp/bare/GNUmakefile.am" "$tmp/bare/VERSION"
cat >"$tmp/bin/autoreconf" <<'TOY'
#!/bin/sh
seq -f 'line %.0f.' 99
test ! -e broken || exit 1
cat >configure <<'CONFIGURE'
#!/bin/sh
test "$*" = -q || echo 'checking much'
printf 'all demo:\n\t@echo $@ is made\n' >GNUmakefile
CONFIGURE
chmod +x configure
TOY
chmod +x "$tmp/bin/autoreconf"
cp "$tmp/bin/autoreconf" "$tmp/bin/libtoolize"
cp "$tmp/bin/autoreconf" "$tmp/bin/pkg-config"
front_door() {
	rm -f "$tmp/bare/configure" "$tmp/bare/GNUmakefile"
	(cd "$tmp/bare" && PATH=$tmp/bin:$PATH V=0 MAKEFLAGS= MAKELEVEL= "$MAKE" "$@") >"$tmp/log" 2>&1 || :
}
printf '%s\n' 'configuring (log in config.log)' 'demo is made' >"$tmp/quiet"
front_door demo
check 'demo configures quietly' diff "$tmp/quiet" "$tmp/log"
front_door -j2 demo
check 'with -j, too' diff "$tmp/quiet" "$tmp/log"
front_door V=1 demo
ends 'not with V=1' 104 '^autoreconf -i$' '^line 1\.$' '^\./configure$' '^checking much$' '^demo is made$'
front_door all
ends 'nor for other goals' 104 '^autoreconf -i$' '^line 1\.$' '^\./configure$' '^checking much$' '^all is made$'
: >"$tmp/bare/broken"
front_door demo
ends 'the end of the log when it fails' 21 '^line 80\.$' '^line 99\.$' 'Error 1$'
finish
