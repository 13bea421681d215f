#!/bin/sh
# Each sentence that evparallel(7) guarantees has a number, and each number has a test that names it, as a label of its
# case: BOOST_AUTO_TEST_CASE(name, *testing::guarantee("1.2 5.1")).
. "${srcdir:-.}/t/lib/gate.sh"
cd "$srcdir"
page=man/evparallel.7

# The items under GUARANTEES must consist of a number, and text that ends in a full stop.
awk '
	/^\.Sh/ { here = ($2 == "GUARANTEES") }
	here && /^\.It / { print $2 }' "$page" >"$tmp/told"
looked_at "$(wc -l <"$tmp/told")" guarantees

# "1.3" is the third sentence of the group with the heading "1."; each sentence begins on a new line.
awk '
	/^\.Sh/ { here = ($2 == "GUARANTEES"); next }
	!here { next }
	/^\.Ss/ { group++; item = 0; if ($2 != group ".") print "the heading of group " group " is " $2; next }
	/^\.Bl/ || /^\.El/ { if (item && !ended) print number " does not end with a full stop"; number = ""; next }
	/^\.It/ {
		if (number != "" && !ended) print number " does not end with a full stop"
		number = group "." ++item
		ended = 0
		if ($2 != number) print $2 " should be " number
		next
	}
	number != "" { if (ended) print number " has more than one sentence: " $0; ended = /\.$/ }' "$page" >"$tmp/disorder"
empty 'the guarantees are numbered in order, and each is one sentence' "$tmp/disorder"

# "number file" for each number that a case names.
for file in t/inside/*.cpp t/outside/*.cpp t/issues/*.cpp t/hostile/*.cpp; do
	tr '\n' ' ' <"$file" | grep -o 'BOOST_[A-Z_]*CASE([^)]*guarantee("[^{]*{' | grep -o 'guarantee("[^"]*")' |
		sed 's/^guarantee("//; s/")$//' | tr ' ' '\n' | sed "s|\$| $file|" || :
done >"$tmp/named"
looked_at "$(wc -l <"$tmp/named")" 'names in tests'

awk 'NR == FNR { told[$1]; next } !($1 in told) { print $2 " names " $1 ", which is not a guarantee" }' "$tmp/told" "$tmp/named" >"$tmp/unknown"
empty 'every guarantee that a test names is in the page' "$tmp/unknown"
awk 'NR == FNR { named[$1]; next } !($1 in named)' "$tmp/named" "$tmp/told" >"$tmp/untested"
empty 'every guarantee is named by a test' "$tmp/untested"
finish
