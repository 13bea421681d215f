#!/bin/sh
# The manual pages are sound mdoc, and each example of section 3 compiles.
. "${srcdir:-.}/t/gate.sh"
tool mandoc

pages=0
for page in "$srcdir"/man/*.[1-9]; do
	test -f "$page" || continue
	pages=$((pages + 1))
	check "${page##*/}: mandoc lint" mandoc -T lint -W warning "$page"
done
looked_at "$pages" pages

# Writes each literal display under EXAMPLES as $2-1.cpp, $2-2.cpp, ... Each stands for itself.
examples_of() {
	awk -v to="$2" '
	/^\.Sh/ { here = ($2 == "EXAMPLES") }
	here && /^\.Bd -literal/ { file = to "-" ++n ".cpp"; code = 1; printf "" >file; next }
	/^\.Ed/ { if (code) close(file); code = 0 }
	code && !/^\.\\"/ { gsub(/\\&/, ""); gsub(/\\e/, "\\"); gsub(/\\-/, "-"); gsub(/\\\(dq/, "\""); gsub(/\\\(aq/, "\047"); print >file }
	' "$1"
}

for page in "$srcdir"/man/*.3; do
	test -f "$page" || continue
	name=${page##*/}
	examples_of "$page" "$tmp/$name"
	examples=0
	for file in "$tmp/$name"-*.cpp; do
		test -f "$file" || continue
		examples=$((examples + 1))
		check "$name: example $examples compiles" $compile -fsyntax-only "$file"
	done
	looked_at "$examples" "examples in $name"
done
finish
