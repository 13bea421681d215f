#!/bin/sh
# The programs of doc/tutorial.md run to their end and print something, and each piece of code that the tutorial or
# README.md quotes is in the last example that the page has named before it.
. "${srcdir:-.}/t/lib/gate.sh"
page=$srcdir/doc/tutorial.md

programs=0
for file in "$srcdir"/examples/tutorial/*.cpp; do
	name=${file##*/}
	name=${name%.cpp}
	programs=$((programs + 1))
	echo "examples/tutorial/$name.cpp" >>"$tmp/there"
	runs "$name runs" "examples/tutorial/$name"
	if test -s "$tmp/said"; then ok "$name prints something"; else not_ok "$name prints nothing"; fi
done
looked_at "$programs" programs

grep -o 'examples/tutorial/[a-z_]*\.cpp' "$page" | sort -u >"$tmp/named"
check 'the page names every program and no other' diff "$tmp/there" "$tmp/named"

# "found" or "lost" for each quote, and its first line. Indentation does not count.
awk -v srcdir="$srcdir" '
	function plain(line) { sub(/^ +/, "", line); return line "\n" }
	function text_of(file,    line, text) {
		text = "\n"
		while ((getline line <file) > 0) text = text plain(line)
		close(file)
		return text
	}
	/^```cpp/ { reading = FNR; quote = "\n"; next }
	/^```/ && reading { print (index(program, quote) ? "found" : "lost") ": " FILENAME ", line " reading; reading = 0; next }
	reading { quote = quote plain($0); next }
	match($0, /examples\/[a-z_\/]*\.cpp/) { program = text_of(srcdir "/" substr($0, RSTART, RLENGTH)) }
' "$page" "$srcdir/README.md" >"$tmp/quotes"
looked_at "$(grep -c . "$tmp/quotes")" 'quotes'
grep '^lost' "$tmp/quotes" >"$tmp/lost" || :
empty 'every quote is in its example' "$tmp/lost"
finish
