#!/bin/sh
# Every include goes down a floor, or stays on it without a circle. t/gates/floors.txt is the law.
. "${srcdir:-.}/t/lib/gate.sh"
cd "$srcdir"

# "file included-file", one line for each include of our own.
own_includes() {
	sed -n -e "s|^ *# *include *\"\(.*\)\".*|$1 src/\1|p" \
	       -e "s|^ *# *include *<\(evparallel/.*\)>.*|$1 include/\1|p" "$1"
}

find include src -name '*.[hc]pp' ! -path include/evparallel/version.hpp | sort >"$tmp/files"
while read -r file; do own_includes "$file"; done <"$tmp/files" >"$tmp/pairs"
sed -e 's/#.*//' -e '/^ *$/d' t/gates/floors.txt >"$tmp/law"

looked_at "$(wc -l <"$tmp/files")" files
looked_at "$(wc -l <"$tmp/pairs")" includes

awk 'NR == FNR { floor[$2] = $1; next } !($1 in floor) { print $1 ": not in t/gates/floors.txt" }' \
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

# Outside tests, those of issues and examples see the library as users do. What tests share in t/lib does so, too.
find examples t/outside t/issues t/lib -name '*.[hc]pp' >"$tmp/outside"
looked_at "$(wc -l <"$tmp/outside")" 'outside files'
while read -r file; do own_includes "$file"; done <"$tmp/outside" |
	while read -r file included; do
		case $included in
		src/*) test -f "t/lib/${included#src/}" || echo "$file includes \"${included#src/}\"" ;;
		esac
	done >"$tmp/peeking"
empty 'outside programs see public headers only' "$tmp/peeking"
finish
