#!/bin/sh
# No case is lost: the test programs have exactly the cases of t/gates/cases.txt. With --list this
# only prints them; `make cases` writes the list that way.
. "${srcdir:-.}/t/lib/gate.sh"

# "inside/io suite/name", one line for each case.
cases() {
	for program in $programs; do
		names=$("./$program" --names) || { echo "$program --names failed"; return 1; }
		name=${program#t/}
		echo "$names" | sed "s|^|${name%.t} |"
	done
}

if test "${1-}" = --list; then
	cases >"$tmp/cases"
	sort "$tmp/cases"
	exit
fi

check 'every program lists its cases' cases
sort "$tmp/said" >"$tmp/cases"
looked_at "$(wc -l <"$tmp/cases")" cases
uniq -d "$tmp/cases" >"$tmp/twice"
empty 'every case name is unique in its program' "$tmp/twice"
sort "$srcdir/t/gates/cases.txt" >"$tmp/list"
for program in $left_out; do
	name=${program#t/}
	sed -i "\|^${name%.t} |d" "$tmp/list"
done
comm -23 "$tmp/list" "$tmp/cases" >"$tmp/lost"
empty 'every case of t/gates/cases.txt exists (after a removal run make cases, and give the reason in the commit)' "$tmp/lost"
comm -13 "$tmp/list" "$tmp/cases" >"$tmp/new"
empty 'every case is in t/gates/cases.txt (after an addition run make cases)' "$tmp/new"
finish
