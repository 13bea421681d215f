#!/bin/sh
# Every header compiles alone, and when it is included twice.
. "${srcdir:-.}/t/gate.sh"

headers=0
for header in "$srcdir"/include/evparallel/*.hpp include/evparallel/version.hpp "$srcdir"/src/*.hpp; do
	case $header in
	include/evparallel/version.hpp) name='<evparallel/version.hpp>' ;;  # made in the build tree
	*/version.hpp) continue ;;
	"$srcdir"/src/*) name="\"${header##*/}\"" ;;
	*) name="<evparallel/${header##*/}>" ;;
	esac
	headers=$((headers + 1))
	printf '#include %s\n' "$name" "$name" >"$tmp/twice.cpp"
	check "$name" $compile -I. -I"$srcdir/src" -fsyntax-only "$tmp/twice.cpp"
done
looked_at "$headers" headers
finish
