#!/bin/sh
# The layout of the code is that of clang-format. `make format` applies it.
. "${srcdir:-.}/t/lib/gate.sh"
tool clang-format
cd "$srcdir"

find include src t examples bench -name '*.[ch]pp' | sort >"$tmp/files"
looked_at "$(wc -l <"$tmp/files")" files
while read -r file; do
	clang-format --dry-run -Werror "$file" >>"$tmp/said" 2>&1 || echo "$file" >>"$tmp/astray"
done <"$tmp/files"
if test -s "$tmp/astray"; then not_ok 'every file is formatted as clang-format does' "$tmp/said"; else ok 'every file is formatted as clang-format does'; fi
finish
