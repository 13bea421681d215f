#!/bin/sh
# Installs the library as a user would, builds and runs the examples with it, and uninstalls it.
. "${srcdir:-.}/t/lib/gate.sh"
tool "${PKG_CONFIG%% *}"

# Every folder of this build is moved below $tmp: DESTDIR is not needed, and nothing outside is touched.
moved=
for dir in $dirs; do moved="$moved ${dir%%=*}=$tmp${dir#*=}"; done
place() { for dir in $moved; do case $dir in "$1="*) echo "${dir#*=}" ;; esac; done; }

quiet_make() { MAKEFLAGS= MAKELEVEL= "$MAKE" -s -j1 "$@" $moved; }   # not a client of the jobserver

check 'make install' quiet_make install
find "$tmp" ! -type d ! -name said | sort >"$tmp/said.installed"
looked_at "$(wc -l <"$tmp/said.installed")" 'installed files'

from_pc() { PKG_CONFIG_PATH=$(place pkgconfigdir) $PKG_CONFIG "$@" "${module:-evparallel}"; }
check 'pkg-config finds the library' from_pc --exists --print-errors
version=$(from_pc --modversion || :)
if test "$version" = "$(cat "$srcdir/VERSION")"; then ok "pkg-config gives version $version"; else not_ok "pkg-config gives version $version, not that of VERSION"; fi

# The arguments of an example, and a folder with content for it to find.
mkdir "$tmp/said.texts"
printf 'one two two\n' >"$tmp/said.texts/a.txt"
printf 'two three\n' >"$tmp/said.texts/b.txt"
arguments() {
	case $1 in
	wordcount) echo "--check $tmp/said.texts" ;;
	frozen) echo "--entries 20000" ;;
	sums) echo "$srcdir/README.md $srcdir/NEWS" ;;
	render) echo "--check --frames --size 200x150 $tmp/said.png" ;;
	esac
}
more_libraries() {
	case $1 in
	render) echo "$png" ;;
	glib_timer) echo "$glib" ;;
	http) echo "$evhttp" ;;
	host) echo "-ldl" ;;
	esac
}

for file in "$srcdir"/examples/*.cpp; do
	name=${file##*/}
	name=${name%.cpp}
	test "$name" != render || test -n "$png" || continue
	! lacks_library "$file" || continue
	test "$name" != http || test -n "$evhttp" || continue
	echo "$name"
done >"$tmp/said.examples"
while read -r name; do
	case $name in crash) module=evparallel-throw ;; *) module=evparallel ;; esac
	queue $link -O0 $(coroutine_flags "$srcdir/examples/$name.cpp") -o "$tmp/said.$name" "$srcdir/examples/$name.cpp" $(from_pc --cflags --libs) $(more_libraries "$name") \
		-Wl,-rpath,"$(place libdir)"
done <"$tmp/said.examples"
module=
run_queue
examples=0
for name in $(cat "$tmp/said.examples"); do
	examples=$((examples + 1))
	checked "$name compiles against it" "$examples"
	runs "$name runs" "$tmp/said.$name" $(arguments "$name")
	if test -s "$tmp/said"; then ok "$name prints something"; else not_ok "$name prints nothing"; fi
done
looked_at "$examples" examples

# Many more lines than fit into the pipes and the queue of the stream.
seq 150000 >"$tmp/said.numbers"
factor <"$tmp/said.numbers" >"$tmp/said.factors"
check 'streammap maps 150000 lines of a pipe in order' timeout -k 5 300 \
	sh -c 'cat "$0" | "$1" | cat | cmp - "$2"' "$tmp/said.numbers" "$tmp/said.streammap" "$tmp/said.factors"

if test -f "$(place libdir)/libevparallel.a"; then
	# A sanitizer cannot be linked statically; only the library is static then.
	whole=-static
	if test -n "$audit"; then
		whole="-L$tmp/said.static"
		mkdir "$tmp/said.static"
		cp "$(place libdir)/libevparallel.a" "$tmp/said.static"
	fi
	check 'hello compiles against the static library' $link -O0 $whole -o "$tmp/said.alone" \
		"$srcdir/examples/hello.cpp" $(from_pc --static --cflags --libs)
	runs 'and runs' "$tmp/said.alone"
	if test -s "$tmp/said"; then ok 'the static hello prints something'; else not_ok 'the static hello prints nothing'; fi
fi

check 'make uninstall' quiet_make uninstall
rm -rf "$tmp"/said* "$tmp"/job.*
find "$tmp" ! -type d ! -path "$tmp/left" ! -path "$tmp/failed" >"$tmp/left"
empty 'make uninstall leaves no file' "$tmp/left"
finish
