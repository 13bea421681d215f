#!/bin/sh
# The way of a call in the sources is the one that evparallel_internals(7) shows step by step: each function is defined
# in the file that the page names, and is called by a function above it in its table, or is passed as a pointer by one
# further up. The first function of a table must be called, or passed, by some function.
. "${srcdir:-.}/t/lib/gate.sh"
cd "$srcdir"
page=man/evparallel_internals.7

# "table function file" of each row.
awk '
	/^\.Sh/ { here = ($2 == "IMPLEMENTATION") }
	here && /^\.Bl -column/ { table++ }
	here && /^\.It (Fn|Li) [^ ]* Ta Pa / {
		sub(/operator\(\)/, "operator_call", $3)
		print table, $3, ($6 ~ /\.cpp$/ ? "src/" : "include/evparallel/") $6
	}' "$page" >"$tmp/hops"
looked_at "$(wc -l <"$tmp/hops")" 'hops'
rows=$(awk '/^\.Sh/ { here = ($2 == "IMPLEMENTATION") } here && /^\.It/ { n++ } END { print n + 0 }' "$page")
if test "$rows" = "$(wc -l <"$tmp/hops")"; then ok 'every row is a hop'; else not_ok "the page has $rows rows that are not all hops"; fi

# The page lists all folders of src, in the order of src/README.md.
awk '/^\.S[sh]/ { here = ($0 == ".Ss The folders of src") } here && /^\.It Pa / { print $3 }' "$page" >"$tmp/folders"
sed -n 's/^| `\([a-z]*\)` |.*/\1/p' src/README.md >"$tmp/rooms"
looked_at "$(wc -l <"$tmp/rooms")" 'folders'
check 'the page has the folders of src/README.md' diff -u "$tmp/rooms" "$tmp/folders"

# "file function text" of each function that has a body.
for file in include/evparallel/*.hpp include/evparallel/detail/*.hpp src/*/*.[hc]pp; do
	awk -v bodies=1 -f t/gates/declarations.awk "$file" | sed "s|^|$file |"
done >"$tmp/bodies"
looked_at "$(wc -l <"$tmp/bodies")" 'functions'

awk '
	# Whether text calls, or mentions as an argument, the last part of name.
	function calls(text, name) {
		sub(/.*::/, "", name)
		return text ~ ("[^A-Za-z_0-9]" name " *[(<,)]")
	}
	function hands_on(text, name) {
		sub(/.*::/, "", name)
		return text ~ ("&([A-Za-z_0-9]+::)*" name "[^A-Za-z_0-9]")
	}
	NR == FNR {
		key = $1 " " $2
		text = substr($0, index($0, "{"))   # its own head is not a call of it
		body[key] = body[key] " " text
		everything = everything " " text
		next
	}
	{
		key = $3 " " $2
		if (!(key in body)) { print $2 " is not defined in " $3; next }
		if ($1 != table) {
			table = $1
			first = n + 1
			# Only calls by users come from outside.
			found = $2 ~ /operator_call/ || $2 == "run" || calls(everything, $2) || hands_on(everything, $2)
		} else {
			found = 0
			for (i = n; i >= first && !found; i--) found = calls(body[hop[i]], $2)
			for (i = n; i >= 1 && !found; i--) found = hands_on(body[hop[i]], $2)
			if (!found) print $2 " in " $3 " is not called by any function above it; the last hop was " hop[n]
		}
		if (!found && first == n + 1) print $2 " in " $3 " begins a table, but nothing calls it"
		hop[++n] = key
	}' "$tmp/bodies" "$tmp/hops" >"$tmp/gaps"
empty 'the path of a call is the one in the page' "$tmp/gaps"

# Functions that src/README.md names behind a file are defined in that file.
tr '\n' ' ' <src/README.md | grep -oE '`[a-z]+/[a-z_]+\.[ch]pp` +`[A-Za-z_:]+`' | tr -d '`' | tr -s ' ' | sort -u >"$tmp/named"
looked_at "$(wc -l <"$tmp/named")" 'functions of src/README.md'
awk 'NR == FNR { defined[$1 " " $2]; next } !(("src/" $0) in defined) { print $2 " is not defined in src/" $1 }' \
	"$tmp/bodies" "$tmp/named" >"$tmp/stale"
empty 'src/README.md names functions in the files that define them' "$tmp/stale"
finish
