#!/bin/sh
# No case is lost: the test programs have those of t/gates/cases.txt, no more and no less.
# With --list it only prints them; `make cases` writes the list that way.
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

check 'every program says which cases it has' cases
sort "$tmp/said" >"$tmp/cases"
looked_at "$(wc -l <"$tmp/cases")" cases
uniq -d "$tmp/cases" >"$tmp/twice"
empty 'no case has the name of another in its program' "$tmp/twice"
sort "$srcdir/t/gates/cases.txt" >"$tmp/list"
comm -23 "$tmp/list" "$tmp/cases" >"$tmp/lost"
empty 'no case is lost (make cases, and the commit says which goes, and why)' "$tmp/lost"
comm -13 "$tmp/list" "$tmp/cases" >"$tmp/new"
empty 'every new case is in t/gates/cases.txt (make cases)' "$tmp/new"
finish
