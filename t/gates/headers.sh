#!/bin/sh
# Every header compiles alone, and when it is included twice.
. "${srcdir:-.}/t/lib/gate.sh"

headers=0
for header in "$srcdir"/include/evparallel/*.hpp "$srcdir"/include/evparallel/detail/*.hpp include/evparallel/version.hpp "$srcdir"/src/*/*.hpp; do
	case $header in
	include/evparallel/version.hpp) name='<evparallel/version.hpp>' ;;  # made in the build tree
	*/version.hpp) continue ;;
	"$srcdir"/src/*) name="\"${header#"$srcdir"/src/}\"" ;;
	*) name="<${header#"$srcdir"/include/}>" ;;
	esac
	headers=$((headers + 1))
	printf '%s\n' "$name" >"$tmp/name.$headers"
	printf '#include %s\n' "$name" "$name" >"$tmp/twice.$headers.cpp"
	queue $compile -I. -I"$srcdir/src" -fsyntax-only "$tmp/twice.$headers.cpp"
done
run_queue
for n in $(seq "$headers"); do checked "$(cat "$tmp/name.$n")" "$n"; done
looked_at "$headers" headers

# Two inline members of the same name are one to the linker: it would be chance which one is called.
find "$srcdir/include" "$srcdir/src" -name '*.hpp' -exec grep -hoE '^ *(class|struct|enum class) (EVPARALLEL_API )?[A-Za-z_0-9]+( final)?( :.*)? \{' {} + |
	grep -v '^ ' | sed -E 's/^(enum class|class|struct) (EVPARALLEL_API )?([A-Za-z_0-9]+).*/\3/' | sort >"$tmp/types"
looked_at "$(wc -l <"$tmp/types")" types
uniq -d "$tmp/types" >"$tmp/twice"
empty 'no type is defined twice' "$tmp/twice"
finish
