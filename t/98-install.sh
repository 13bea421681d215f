#!/bin/sh
# Installs the library as a user would, builds and runs the hello against it, and takes it away again.
. "${srcdir:-.}/t/gate.sh"
tool "${PKG_CONFIG%% *}"

# Every folder of this build, moved below $tmp: no DESTDIR, and yet nothing outside is touched.
# (libtool refuses other places, as the library's own path is known to it already.)
moved=
for dir in $dirs; do moved="$moved ${dir%%=*}=$tmp${dir#*=}"; done
place() { for dir in $moved; do case $dir in "$1="*) echo "${dir#*=}" ;; esac; done; }

quiet_make() { MAKEFLAGS= MAKELEVEL= "$MAKE" -s "$@" $moved; }   # no part of the jobserver's crew

check 'make install' quiet_make install
find "$tmp" ! -type d ! -name said | sort >"$tmp/said.installed"
looked_at "$(wc -l <"$tmp/said.installed")" 'installed files'

# pkg-config reads where things are to be; here they are below $tmp.
from_pc() {
	PKG_CONFIG_PATH=$(place pkgconfigdir) $PKG_CONFIG --define-variable=libdir="$(place libdir)" \
		--define-variable=includedir="$(place includedir)" "$@" evparallel
}
check 'pkg-config knows it' from_pc --exists --print-errors
version=$(from_pc --modversion || :)
if test "$version" = "$(cat "$srcdir/VERSION")"; then ok "it is version $version"; else not_ok "pkg-config says version $version"; fi

check 'the hello compiles against it' \
	$link -o "$tmp/said.hello" "$srcdir/examples/hello.cpp" $(from_pc --cflags --libs) -Wl,-rpath,"$(place libdir)"
check 'the hello runs' "$tmp/said.hello"
if test -s "$tmp/said"; then ok 'the hello says something'; else not_ok 'the hello says nothing'; fi

check 'make uninstall' quiet_make uninstall
rm -f "$tmp"/said*
find "$tmp" ! -type d >"$tmp/left"
sed -i '\|/left$|d' "$tmp/left"
empty 'nothing is left of it' "$tmp/left"
finish
