#!/bin/sh
# make.sh - writes the manual as HTML: make.sh FOLDER.
#
# A page has the path of its source below the folder, with the ending .html: doc/tutorial.html, examples/hello.cpp.html,
# include/evparallel/run.hpp.html.  Only the pages of the manual are not below man/: evparallel_run.3.html.
# Environment: srcdir, version, version_hpp (made by configure), MANDOC, LOWDOWN, AWK.
set -eu
LC_ALL=C
export LC_ALL

out=$1
for word in "$MANDOC mandoc" "$LOWDOWN lowdown"; do
	command -v "${word%% *}" >/dev/null || { echo "make html: ${word##* } is missing; 'make deps' installs it" >&2; exit 1; }
done

here=$srcdir/doc/html
work=$(mktemp -d "${TMPDIR:-/tmp}/html.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

texts='README.md CONTRIBUTING.md SECURITY.md doc/tutorial.md doc/releasing.md src/README.md t/README.md bench/README.md'
manuals=$(cd "$srcdir/man" && echo evparallel.7 *.3 evparallel_*.7)
examples=$(cd "$srcdir" && echo examples/*.cpp examples/tutorial/*.cpp)
headers=$(cd "$srcdir" && ls include/evparallel/*.hpp include/evparallel/detail/*.hpp include/evparallel/version.hpp.in |
	sed 's/version\.hpp\.in$/version.hpp/' | sort -u)

# The file with the text of a header: one is in the build tree.
text_of() { case $1 in include/evparallel/version.hpp) echo "$version_hpp" ;; *) echo "$srcdir/$1" ;; esac; }

# about FILE: the first sentence of its first comment, as HTML.
about() {
	awk '
		!/^\/\// { exit }
		NR == 1 { sub(/^\/\/ [a-z_]*\.[ch]pp - /, "") }
		{ sub(/^\/\/ ?/, ""); text = text " " $0; if (/\.$/ || /\.  /) exit }
		END {
			sub(/\.  .*/, ".", text); sub(/^ /, "", text); sub(/\.$/, "", text)
			gsub(/&/, "\\&amp;", text); gsub(/</, "\\&lt;", text)
			print toupper(substr(text, 1, 1)) substr(text, 2)
		}' "$1"
}

# ---- what links lead to -------------------------------------------------------------------------

{
	for page in $manuals; do printf '%s(%s)\t%s\n' "${page%.*}" "${page##*.}" "$page.html"; done
	for file in $texts; do printf '%s\t%s\n' "$file" "${file%.md}.html"; done
	printf 'NEWS\tNEWS.html\nCOPYING\tCOPYING.html\n'
	for file in $examples; do printf '%s\t%s\n%s\t%s\n' "$file" "$file.html" "${file%.cpp}" "$file.html"; done
	for file in $headers; do
		printf '%s\t%s\n%s\t%s\n%s\t%s\n' "$file" "$file.html" "${file#include/}" "$file.html" "${file#include/evparallel/}" "$file.html"
	done
} >"$work/targets"

# "name page" for each name under NAME.
for page in $manuals; do
	awk -v page="$page" '
		/^\.Sh/ { here = ($2 == "NAME") }
		here && /^\.Nm/ && $2 ~ /^evparallel::|^EVPARALLEL_/ { sub(/^evparallel::/, "", $2); print $2, page }' "$srcdir/man/$page"
done >"$work/names"

# "header page" by the first comment of each header.
for file in $headers; do
	page=$(sed -n '1,12s/^\/\/.*Manual: \([a-z_]*\)(\([37]\)).*/\1.\2/p' "$(text_of "$file")" | head -n 1)
	echo "$file ${page:-evparallel.7}"
done >"$work/headers"

# "example page" for each page with a name that the example uses, and for each that mentions it.
for file in $examples; do
	{
		grep -oE '(par|evparallel)::[A-Za-z_0-9]+|EVPARALLEL_[A-Z_]+' "$srcdir/$file" | sed 's/.*:://' | sort -u |
			awk 'NR == FNR { if (!($1 in page)) page[$1] = $2; next } $1 in page { print page[$1] }' "$work/names" -
		(cd "$srcdir/man" && grep -l "^\.Pa $file" $manuals) || :
	} | sort -u | sed "s|^|$file |"
done >"$work/uses"

# ---- pages --------------------------------------------------------------------------------------

mkdir -p "$out" "$out/doc" "$out/src" "$out/t" "$out/bench" "$out/examples/tutorial" "$out/include/evparallel/detail"
cp "$here/style.css" "$out/style.css"

# frame KIND PAGE TITLE [MORE]: the piece of HTML that it reads becomes a page.
frame() {
	"$AWK" -v kind="$1" -v self="$2" -v title="$3" -v more="${4-}" -v version="$version" -v targets="$work/targets" \
		-v root="$(dirname "$2" | sed -e 's|^\.$||' -e 's|[^/][^/]*|..|g' -e 's|$|/|' -e 's|^/$||')" \
		-f "$here/frame.awk" >"$out/$2"
}

markdown() {
	"$LOWDOWN" -t html --parse-no-metadata --parse-no-super --out-no-smarty --html-no-owasp "$@"
}

list_of() { sed 's|\(.*\) \(.*\)|<a href="\1">\2</a>|' | awk 'NR > 1 { print "," } { printf "%s", $0 } END { print "." }'; }

# Foreign pages are those of Debian; mandoc looks for our own in the current folder.
for page in $manuals; do
	{
		echo '<aside class="related">'
		sed -n "s|^\(.*\)/\([a-z_]*\.hpp\) $page\$|\1/\2.html \2|p" "$work/headers" >"$work/list"
		test ! -s "$work/list" || { printf '<p>Headers: '; list_of <"$work/list"; echo '</p>'; }
		sed -n "s|^examples/\(.*\)\.cpp $page\$|examples/\1.cpp.html \1|p" "$work/uses" >"$work/list"
		test ! -s "$work/list" || { printf '<p>Programs that use it: '; list_of <"$work/list"; echo '</p>'; }
		printf '<p>All pages: <a href="pages.html">by subject</a>, <a href="names.html">by name</a>, <a href="index.html">by task</a>.</p>\n</aside>\n'
	} >"$work/more"
	(cd "$srcdir/man" && "$MANDOC" -I os="evparallel $version" -T html -O 'fragment,man=%N.%S.html;https://manpages.debian.org/%N.%S' "$page") |
		frame man "$page.html" "${page%.*}(${page##*.})" "$work/more"
done

for file in $texts; do
	test -f "$srcdir/$file" || continue
	markdown "$srcdir/$file" | frame text "${file%.md}.html" "$(sed -n '1s/^# //p' "$srcdir/$file")"
done

# NEWS has the lists and the code of Markdown, and is plain text otherwise; its table of dependencies stays as it is.
awk '
	/^[^ ]/ { table = ($0 == "Dependencies"); print (table ? "## " : "# ") $0; next }
	table { print "    " $0; next }
	{
		sub(/^  /, "")
		pieces = split($0, piece, "`")
		for (i = 1; i <= pieces; i++) {
			if (i % 2) gsub(/[][\\*_<>&]/, "\\\\&", piece[i])
			printf "%s%s", (i > 1 ? "`" : ""), piece[i]
		}
		print ""
	}' "$srcdir/NEWS" >"$work/news.md"
markdown "$work/news.md" | frame text NEWS.html News
"$AWK" -v plain=1 -f "$here/source.awk" "$srcdir/COPYING" | frame source COPYING.html Licence

# source FILE ABOUT: a source with its first sentence, and the pages of the file named in ABOUT.
source() {
	depth=$(dirname "$1" | sed 's|[^/][^/]*|..|g')
	{
		printf '<p>%s.</p>\n' "$(about "$(text_of "$1")")"
		printf '<p>%s: ' "$2"
		sed -n "s|^$1 \(.*\)\.\([37]\)\$|$depth/\1.\2.html \1(\2)|p" "$3" | list_of
		printf '</p>\n'
		"$AWK" -v names="$work/names" -v root="$depth/" -f "$here/source.awk" "$(text_of "$1")"
	} | frame source "$1.html" "$1"
}
for file in $examples; do source "$file" 'Manual pages of what it uses' "$work/uses"; done
for file in $headers; do source "$file" 'Manual' "$work/headers"; done

# ---- lists --------------------------------------------------------------------------------------

# By task: the only list that is written by hand.
markdown "$srcdir/doc/index.md" | frame text index.html evparallel

{
	echo '<h2 id="manual">Manual</h2><dl>'
	for page in $manuals; do
		printf '<dt><a href="%s.html">%s(%s)</a></dt><dd>%s</dd>\n' "$page" "${page%.*}" "${page##*.}" \
			"$(sed -n 's/^\.Nd //p' "$srcdir/man/$page" | sed -e 's/&/\&amp;/g' -e 's/</\&lt;/g')"
	done
	echo '</dl><h2 id="texts">Texts</h2><ul>'
	for file in $texts; do
		test ! -f "$srcdir/$file" || printf '<li><a href="%s">%s</a>: %s</li>\n' "${file%.md}.html" "$file" "$(sed -n '1s/^# //p' "$srcdir/$file")"
	done
	echo '<li><a href="NEWS.html">NEWS</a></li><li><a href="COPYING.html">COPYING</a>: Licence</li></ul>'
} | frame list pages.html 'Pages'

# sources TITLE FILE...: a list of sources, each with its first sentence.
sources() {
	printf '<h2 id="%s">%s</h2><dl>\n' "$1" "$2"
	shift 2
	for file; do
		name=${file#include/evparallel/}
		printf '<dt><a href="%s.html">%s</a></dt><dd>%s</dd>\n' "$file" "${name#examples/}" "$(about "$(text_of "$file")")"
	done
	echo '</dl>'
}
{
	sources programs Programs $(cd "$srcdir" && echo examples/*.cpp)
	sources tutorial 'Steps of the tutorial' $(for step in $(grep -o 'examples/tutorial/[a-z_]*\.cpp' "$srcdir/doc/tutorial.md" | awk '!($0 in seen) { seen[$0]; print }'); do echo "$step"; done)
} | frame list examples.html 'Examples'
{
	echo '<p>Each header may be included alone; <a href="include/evparallel/evparallel.hpp.html">evparallel.hpp</a> includes all but a few.</p>'
	sources public 'Public headers' $(echo "$headers" | grep -v /detail/)
	sources detail 'Parts of them that programs do not include' $(echo "$headers" | grep /detail/)
} | frame list headers.html 'Headers'

# By name: all names that the headers declare, except constructors, with the page of the header.  A name that is an
# anchor of the page leads there: a member only if no other name of the page ends in the same word.
for file in $headers; do
	case $file in */detail/*) continue ;; esac
	page=$(sed -n "s|^$file ||p" "$work/headers")
	"$AWK" -f "$srcdir/t/gates/declarations.awk" "$(text_of "$file")" | sed -n "s|^[a-oq-z][a-z]* \(.*\)|$page \1|p"
done | grep -v '[ :]\([A-Za-z_]*\)::\1$' | sort -u >"$work/declared"
for page in $manuals; do
	grep -oE ' id="[A-Za-z_0-9:]+"' "$out/$page.html" | sed -e "s|^ id=\"|$page |" -e 's|"$||'
done >"$work/ids"
{
	echo '<p>The names of <code>namespace evparallel</code>, each with its public members.  They lead to the manual.</p>'
	echo '<dl class="names">'
	awk '
		function first(name) { sub(/::.*/, "", name); return name }
		function last(name) { sub(/.*::/, "", name); return name }
		FNR == 1 { file++ }
		file == 1 { id[$1 " " $2]; next }
		file == 2 { users[$1 " " last($2)]++; next }
		file == 3 { page_of[$1] = $2; next }
		{
			page = first($2) in page_of ? page_of[first($2)] : $1
			anchor = ""
			if ((page " " $2) in id) anchor = "#" $2
			else if ((page " " last($2)) in id && users[$1 " " last($2)] == 1) anchor = "#" last($2)
			print tolower(first($2)), first($2), $2, page ".html" anchor
		}' "$work/ids" "$work/declared" "$work/names" "$work/declared" | sort -u -k 1,3 |
		awk '
			$2 != outer {
				if (outer != "") print "</dd>"
				outer = $2
				if (outer != $3) printf "<dt><code>%s</code></dt>", outer
			}
			{
				word = $3 == outer ? outer : substr($3, length(outer) + 3)
				link = "<a id=\"" $3 "\" href=\"" $4 "\"><code>" word "</code></a>"
				if ($3 == outer) print "<dt>" link "</dt>";
				if ($3 == outer || outer != opened) { printf "<dd>"; opened = outer }
				if ($3 != outer) print link
			}
			END { print "</dd>" }'
	echo '</dl>'
} | frame list names.html 'Names'
