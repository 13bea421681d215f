#!/bin/sh
# Each test is in the folder of its kind, its name describes its subject, and it is run.
. "${srcdir:-.}/t/lib/gate.sh"
cd "$srcdir"

find t/inside t/outside t/issues t/hostile -name '*.cpp' | sort >"$tmp/sources"
looked_at "$(wc -l <"$tmp/sources")" 'sources of test programs'
find t/gates -name '*.sh' | sort >"$tmp/gates"
looked_at "$(wc -l <"$tmp/gates")" gates

# Files that programs are made of are in the same folder, and the makefile names them.
while read -r source; do
	case " $programs $left_out " in *" ${source%.cpp}.t "*) continue ;; esac
	grep -q "^[^#]*\(= \|  \| \)$source\( \|\$\)" GNUmakefile.am || echo "$source"
done <"$tmp/sources" >"$tmp/unbuilt"
find t/fuzz -name '*.cpp' | sed 's/\.cpp$//' | sort >"$tmp/fuzz"
looked_at "$(wc -l <"$tmp/fuzz")" 'sources of fuzz targets'
while read -r source; do
	grep -q "^[^#]* $source\(\.cpp\| \|\$\)" GNUmakefile.am || echo "$source.cpp"
done <"$tmp/fuzz" >>"$tmp/unbuilt"
empty 'every source is built' "$tmp/unbuilt"
for program in $programs; do
	test -f "${program%.t}.cpp" || echo "$program"
done >"$tmp/without"
empty 'every program has a source file of the same name' "$tmp/without"

# These have goals of their own, since they take minutes.
while read -r gate; do
	case " $gates t/gates/valgrind.sh t/gates/helgrind.sh t/gates/packages.sh t/gates/modes.sh t/gates/cross.sh t/gates/fuzz.sh " in *" $gate "*) ;; *) echo "$gate" ;; esac
done <"$tmp/gates" >"$tmp/unrun"
empty 'every gate is run' "$tmp/unrun"

grep '[0-9]' "$tmp/sources" "$tmp/gates" >"$tmp/numbers" || :
empty 'names have no numbers' "$tmp/numbers"
grep -v '^t/issues/' "$tmp/sources" | sed 's|.*/||' | sort | uniq -d >"$tmp/twice"
empty 'every name is unique, and t/issues has one name for each floor' "$tmp/twice"
finish
