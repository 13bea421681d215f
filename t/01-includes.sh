#!/bin/sh
# Every include goes down a floor, or stays on it without a circle. t/floors.txt is the law.
. "${srcdir:-.}/t/gate.sh"
cd "$srcdir"

# "file included-file", one line for each include of our own.
own_includes() {
	sed -n -e "s|^ *# *include *\"\(.*\)\".*|$1 src/\1|p" \
	       -e "s|^ *# *include *<\(evparallel/.*\)>.*|$1 include/\1|p" "$1"
}

find include src -name '*.[hc]pp' ! -path include/evparallel/version.hpp | sort >"$tmp/files"
while read -r file; do own_includes "$file"; done <"$tmp/files" >"$tmp/all"
grep '^src/[^ ]*\.cpp src/config.h$' "$tmp/all" >"$tmp/config" || :   # made by configure, for sources alone
grep -v -x -F -f "$tmp/config" "$tmp/all" >"$tmp/pairs" || :
sed -e 's/#.*//' -e '/^ *$/d' t/floors.txt >"$tmp/law"

looked_at "$(wc -l <"$tmp/files")" files
looked_at "$(wc -l <"$tmp/pairs")" includes

awk 'NR == FNR { floor[$2] = $1; next } !($1 in floor) { print $1 ": not in t/floors.txt" }' \
	"$tmp/law" "$tmp/files" >"$tmp/homeless"
empty 'every file has a floor' "$tmp/homeless"

while read -r floor file; do
	test -f "$file" || test -f "$file.in" || echo "$file: on floor $floor, but there is no such file"
done <"$tmp/law" >"$tmp/ghosts"
empty 'every file of the law exists' "$tmp/ghosts"

awk 'NR == FNR { floor[$2] = $1; next } !($2 in floor) { print $1 " includes " $2 ", which has no floor" }
     ($1 in floor) && ($2 in floor) && floor[$2] + 0 > floor[$1] + 0 { print $1 " (" floor[$1] ") includes " $2 " (" floor[$2] ")" }' \
	"$tmp/law" "$tmp/pairs" >"$tmp/upward"
empty 'no include goes up' "$tmp/upward"

awk '$1 ~ /^include/ && $2 ~ /^src/ { print $1 " includes " $2 }' "$tmp/pairs" >"$tmp/private"
empty 'nothing public includes something private' "$tmp/private"

check 'no circle' tsort "$tmp/pairs"

# Tests from 70 on, those of issues and examples stand outside, as users do.
find examples t -name '*.cpp' | sed -n -e '/^examples\//p' -e '/^t\/[789][0-9]-/p' -e '/^t\/issues\//p' >"$tmp/outside"
looked_at "$(wc -l <"$tmp/outside")" 'outside programs'
while read -r file; do own_includes "$file"; done <"$tmp/outside" |
	awk '$2 ~ /^src/ && $2 != "src/testing.hpp" && $2 != "src/elsewhere.hpp" && $2 != "src/errors.hpp" && $2 != "src/library.hpp" { sub("^src/", "", $2); print $1 " includes \"" $2 "\"" }' >"$tmp/peeking"
empty 'outside programs see public headers only' "$tmp/peeking"
finish
