#!/bin/sh
# The table of src/README.md has the rules: it names the folders, lowest floor first, the processes that run them, and
# the floor of each public header. Every include goes down a floor, or remains on it without a cycle.
. "${srcdir:-.}/t/lib/gate.sh"
cd "$srcdir"

# "file included-file", one line for each include of this library.
own_includes() {
	sed -n -e "s|^ *# *include *\"\(.*\)\".*|$1 src/\1|p" \
	       -e "s|^ *# *include *<\(evparallel/.*\)>.*|$1 include/\1|p" "$1"
}

find include src -name '*.[hc]pp' ! -path include/evparallel/version.hpp | sort >"$tmp/files"
while read -r file; do own_includes "$file"; done <"$tmp/files" >"$tmp/pairs"
looked_at "$(wc -l <"$tmp/files")" files
looked_at "$(wc -l <"$tmp/pairs")" includes

# ---- the rules -----------------------------------------------------------------------------------

# "floor folder" and "floor header", and "folder processes".
awk -F'|' '/^\| `/ {
	floor++
	folder = $2; gsub(/[` ]/, "", folder)
	print floor, "src/" folder >folders
	runs = $3; gsub(/[ ,]+/, " ", runs); print folder runs >processes
	n = split($4, headers, /[` ]+/)
	for (i = 1; i <= n; i++) if (headers[i] != "") print floor, "include/evparallel/" headers[i] ".hpp" >public
} /^## / && floor { exit }' folders="$tmp/folders" processes="$tmp/processes" public="$tmp/public" src/README.md

cut -d' ' -f2 "$tmp/folders" | sort >"$tmp/named"
find src -mindepth 1 -maxdepth 1 -type d ! -name '.*' | sort >"$tmp/there"
check 'the table lists the folders of src' diff "$tmp/named" "$tmp/there"
cut -d' ' -f2 "$tmp/public" | sort >"$tmp/named"
{ find include -name '*.hpp' ! -name version.hpp; echo include/evparallel/version.hpp; } | sort >"$tmp/there"
check 'the table lists the public headers' diff "$tmp/named" "$tmp/there"
grep '^src/[^/]*$' "$tmp/files" >"$tmp/homeless" || :
empty 'every file of src/ is in a folder' "$tmp/homeless"

# ---- includes ------------------------------------------------------------------------------------

awk '
	function floor_of(file,    folder) {
		if (file in floor) return floor[file]
		folder = file
		sub("/[^/]*$", "", folder)
		return folder in floor ? floor[folder] : 0
	}
	FILENAME != pairs { floor[$2] = $1; next }
	!floor_of($1) || !floor_of($2) { print $1 " includes " $2 ", and one of them is not in the table"; next }
	floor_of($2) > floor_of($1) { print $1 " includes " $2 }
' pairs="$tmp/pairs" "$tmp/folders" "$tmp/public" "$tmp/pairs" >"$tmp/upward"
empty 'no file includes one of a higher floor' "$tmp/upward"

awk '$1 ~ /^include/ && $2 ~ /^src/ { print $1 " includes " $2 }' "$tmp/pairs" >"$tmp/private"
empty 'no public header includes a private one' "$tmp/private"

check 'the includes have no cycle' tsort "$tmp/pairs"

sed -n 's|.*/||p' "$tmp/files" | grep '\.hpp$' | sort | uniq -d >"$tmp/twice"
empty 'no two headers have the same name' "$tmp/twice"

# ---- processes -----------------------------------------------------------------------------------

# The first comment of a file names the processes that run it: all processes of its folder, or some of them.
grep '^src/' "$tmp/files" | while read -r file; do
	runs=$(sed -n '2,12s|^// Runs in: \([a-z, ]*\)\..*|\1|p' "$file" | tr -d ,)
	folder=${file#src/}
	allowed=" $(sed -n "s|^${folder%%/*} ||p" "$tmp/processes") "
	test -n "$runs" || echo "$file does not say where it runs"
	for process in $runs; do
		case $allowed in *" $process "*) ;; *) echo "$file runs in $process, but its folder only in$allowed" ;; esac
	done
done >"$tmp/astray"
empty 'every file says in which processes it runs, and its folder allows them' "$tmp/astray"

# ---- who may include what ------------------------------------------------------------------------

# Tests in outside and issues, and examples, see the library as users do; so do the helpers in t/lib.
find examples t/outside t/issues t/hostile t/lib -name '*.[hc]pp' >"$tmp/outside"
looked_at "$(wc -l <"$tmp/outside")" 'outside files'
while read -r file; do own_includes "$file"; done <"$tmp/outside" |
	while read -r file included; do
		case $included in
		src/*) test -f "t/lib/${included#src/}" || echo "$file includes \"${included#src/}\"" ;;
		esac
	done >"$tmp/peeking"
empty 'outside programs include only public headers' "$tmp/peeking"
finish
