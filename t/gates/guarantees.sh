#!/bin/sh
# Each sentence that evparallel(7) guarantees and evparallel_security(7) promises has a number, and each number has a test
# that names it, as a label of its case: BOOST_AUTO_TEST_CASE(name, *testing::guarantee("1.2 5.1 A.1")).
. "${srcdir:-.}/t/lib/gate.sh"
cd "$srcdir"

# sentences PAGE SECTION GROUPS: the items of the section must consist of a number, and text that ends in a full stop.
# "1.3" is the third sentence of the group with the heading "1."; each sentence begins on a new line.
: >"$tmp/told"
: >"$tmp/disorder"
sentences() {
	awk -v section="$2" '
		/^\.Sh/ { here = (substr($0, 5) == section) }
		here && /^\.It / { print $2 }' "man/$1" >"$tmp/found"
	looked_at "$(wc -l <"$tmp/found")" "sentences in $1"
	cat "$tmp/found" >>"$tmp/told"
	awk -v section="$2" -v groups="$3" -v page="$1: " '
		BEGIN { count = split(groups, name) }
		/^\.Sh/ { here = (substr($0, 5) == section); next }
		!here { next }
		/^\.Ss/ { ++group; item = 0; if ($2 != name[group] ".") print page "the heading of group " name[group] " is " $2; next }
		/^\.Bl/ || /^\.El/ { if (item && !ended) print page number " does not end with a full stop"; number = ""; next }
		/^\.It/ {
			if (number != "" && !ended) print page number " does not end with a full stop"
			number = name[group] "." ++item
			ended = 0
			if ($2 != number) print page $2 " should be " number
			next
		}
		number != "" { if (ended) print page number " has more than one sentence: " $0; ended = /\.$/ }
		END { if (group != count) print page group + 0 " groups in place of " count }' "man/$1" >>"$tmp/disorder"
}
sentences evparallel.7 GUARANTEES '1 2 3 4 5 6 7'
sentences evparallel_security.7 PROMISES 'A B'
empty 'the sentences are numbered in order, and each is one' "$tmp/disorder"

# "number file" for each number that a case names.
for file in t/inside/*.cpp t/outside/*.cpp t/issues/*.cpp t/hostile/*.cpp; do
	tr '\n' ' ' <"$file" | grep -o 'BOOST_[A-Z_]*CASE([^)]*guarantee("[^{]*{' | grep -o 'guarantee("[^"]*")' |
		sed 's/^guarantee("//; s/")$//' | tr ' ' '\n' | sed "s|\$| $file|" || :
done >"$tmp/named"
looked_at "$(wc -l <"$tmp/named")" 'names in tests'

awk 'NR == FNR { told[$1]; next } !($1 in told) { print $2 " names " $1 ", which is no such sentence" }' "$tmp/told" "$tmp/named" >"$tmp/unknown"
empty 'every number that a test names is in a page' "$tmp/unknown"
awk 'NR == FNR { named[$1]; next } !($1 in named)' "$tmp/named" "$tmp/told" >"$tmp/untested"
empty 'every sentence is named by a test' "$tmp/untested"
finish
