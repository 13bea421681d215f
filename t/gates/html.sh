#!/bin/sh
# The manual as HTML, in one piece: every link and fragment leads to something, every page is well-formed, has been
# converted as a whole, and is reached from the list of tasks, which names each page, each name and each example.
. "${srcdir:-.}/t/lib/gate.sh"
tool mandoc
tool lowdown

check 'make html' env MAKEFLAGS= MAKELEVEL= "$MAKE" -s -j1 html html_folder="$tmp/html"
if ! test -f "$tmp/html/index.html"; then finish; exit; fi
here=$(pwd)
cd "$tmp/html"
find . -name '*.html' | sed 's|^\./||' | sort >"$tmp/pages"
looked_at "$(grep -c . "$tmp/pages")" pages

# tags PAGE...: "PAGE tag attributes" for each tag, and complaints about a page that is not well-formed: a tag that is
# not closed or closed twice, an attribute without quotes, an id that occurs twice, a bare & or > in the wrong place.
tags() {
	awk -v complaints="$tmp/malformed" '
	function complain(what) { print page ": " what >complaints }
	function first_word(s) { sub(/[ \/\n].*/, "", s); return s }
	function end_of_page() {
		while (depth > 0) complain("<" open[depth--] "> is not closed")
	}
	FNR == 1 { if (page != "") end_of_page(); page = FILENAME; split("", ids); depth = 0; next }   # in front of the first tag
	/^!--/ || /^!DOCTYPE/ { next }
	{
		cut = index($0, ">")
		if (!cut) { complain("a bare < before " substr($0, 1, 30)); next }
		tag = substr($0, 1, cut - 1)
		text = substr($0, cut + 1)
		gsub(/&(amp|lt|gt|quot|#[0-9]+|#x[0-9A-Fa-f]+);/, "", text)
		if (text ~ /&/) complain("a bare & in " substr(text, 1, 60))
		if (text ~ />/) complain("a bare > in " substr(text, 1, 60))
		if (tag ~ /^\//) {
			if (open[depth] != substr(tag, 2)) complain("<" tag "> where <" open[depth] "> is open")
			else depth--
			next
		}
		name = first_word(tag)
		if (tag !~ /\/$/) open[++depth] = name
		gsub(/[\n\t]+/, " ", tag)
		attributes = substr(tag, length(name) + 1)
		sub(/\/$/, "", attributes)
		while (match(attributes, / +[a-z-]+="[^"<]*"/)) {
			attribute = substr(attributes, RSTART, RLENGTH)
			if (RSTART != 1) break
			attributes = substr(attributes, RLENGTH + 1)
			sub(/^ +/, "", attribute)
			if (attribute ~ /^id=/) { if (attribute in ids) complain("twice " attribute); ids[attribute] }
			sub(/="/, " ", attribute)
			sub(/"$/, "", attribute)
			gsub(/&amp;/, "\\&", attribute)
			print page, name, attribute
		}
		if (attributes !~ /^ *$/) complain("attributes of <" tag ">")
	}
	END { end_of_page() }' RS='<' "$@"
}

: >"$tmp/malformed"
tags $(cat "$tmp/pages") >"$tmp/tags"
empty 'pages are well-formed' "$tmp/malformed"
printf '<p id="a"><b>x & y</p><p id="a"><a href=b>z</a></p>' >"$tmp/bad.html"
mv "$tmp/malformed" "$tmp/kept"
tags "$tmp/bad.html" >"$tmp/said.tags"
if test "$(grep -c . "$tmp/malformed")" -ge 4; then ok 'a malformed page is noticed'; else not_ok 'a malformed page is noticed' "$tmp/malformed"; fi
if command -v xmllint >/dev/null; then
	check 'xmllint reads all pages' xmllint --noout $(cat "$tmp/pages")
else
	ok 'xmllint reads all pages # SKIP no xmllint'
fi

# ---- links --------------------------------------------------------------------------------------

# follow PAGES TAGS: "lost: ..." for each link that leads nowhere; "PAGE TARGET" for each one between pages.  Foreign
# links are checked for their form alone: a test has no network.
follow() {
	awk -v list="$1" '
	function plain(s,    out, hex) {
		out = ""
		while (match(s, /%[0-9A-Fa-f][0-9A-Fa-f]/)) {
			hex = toupper(substr(s, RSTART + 1, 2))
			out = out substr(s, 1, RSTART - 1) sprintf("%c", 16 * (index("0123456789ABCDEF", substr(hex, 1, 1)) - 1) + index("0123456789ABCDEF", substr(hex, 2, 1)) - 1)
			s = substr(s, RSTART + 3)
		}
		return out s
	}
	function resolved(page, path) {
		if (path == "") return page
		if (page ~ /\//) { sub(/[^\/]*$/, "", page); path = page path }
		while (path ~ /[^\/.]+\/\.\.\//) sub(/[^\/.]+\/\.\.\//, "", path)
		return path
	}
	BEGIN { while ((getline page <list) > 0) there[page]; there["style.css"] }
	NR == FNR { if ($3 == "id") { value = $0; sub(/^[^ ]+ [^ ]+ [^ ]+ /, "", value); anchor[$1 "#" value] } next }
	$3 == "href" || $3 == "src" {
		value = $0
		sub(/^[^ ]+ [^ ]+ [^ ]+ ?/, "", value)
		count++
		if (value ~ /^[a-z]+:/) {
			if (value !~ /^https:\/\/[a-z.]+\/[A-Za-z0-9_.\/-]+$/) print "lost: " $1 ": the form of " value
			next
		}
		cut = index(value, "#")
		path = cut ? substr(value, 1, cut - 1) : value
		to = resolved($1, path)
		if (!(to in there)) print "lost: " $1 ": no page " value
		else if (cut && !((to "#" plain(substr(value, cut + 1))) in anchor)) print "lost: " $1 ": no anchor " value
		else if (to != $1) print $1, to
	}
	END { print "followed", count + 0 }' "$2" "$2"
}
follow "$tmp/pages" "$tmp/tags" | sort -u >"$tmp/links"
looked_at "$(sed -n 's/^followed //p' "$tmp/links")" 'links'
grep '^lost' "$tmp/links" >"$tmp/lost" || :
empty 'every link leads to a page and an anchor' "$tmp/lost"

echo a.html >"$tmp/few"
printf 'a.html p id x\na.html a href #x\na.html a href #y\na.html a href b.html\na.html a href http://c\n' >"$tmp/said.few"
if test "$(follow "$tmp/few" "$tmp/said.few" | grep -c '^lost')" = 3; then ok 'lost links are noticed'; else not_ok 'lost links are noticed'; fi

# ---- what is in the index -----------------------------------------------------------------------

# Pages that a reader of index.html gets to.
awk '
	NR == FNR { if ($1 !~ /^(lost:|followed)$/) to[$1] = to[$1] " " $2; next }
	FNR == 1 {
		seen["index.html"]
		queue[1] = "index.html"
		for (n = first = 1; first <= n; first++) {
			split(to[queue[first]], next_pages, " ")
			for (i in next_pages) if (!(next_pages[i] in seen)) { seen[next_pages[i]]; queue[++n] = next_pages[i] }
		}
	}
	!($0 in seen)' "$tmp/links" "$tmp/pages" >"$tmp/unreached"
empty 'every page is reached from index.html' "$tmp/unreached"

# linked FROM WHAT FILE...: the page FROM itself links to the page of each of these.
linked() {
	from=$1
	what=$2
	shift 2
	for page; do grep -q -x -F "$from $page" "$tmp/links" || echo "$page"; done >"$tmp/unlinked"
	looked_at $# "$what"
	empty "$from links to each of the $what" "$tmp/unlinked"
}
case $srcdir in /*) sources=$srcdir ;; *) sources=$here/$srcdir ;; esac
linked index.html 'manual pages' $(cd "$sources/man" && for page in *.[1-9]; do echo "$page.html"; done)
linked index.html examples $(cd "$sources" && for file in examples/*.cpp examples/tutorial/*.cpp; do echo "$file.html"; done)
linked headers.html 'public headers' $(cd "$sources" && for file in include/evparallel/*.hpp include/evparallel/version.hpp; do echo "$file.html"; done | sort -u)

# The list of tasks has the names under NAME of all pages.
for page in "$sources"/man/*.[37]; do
	sed -n -e '/^\.Sh NAME/,/^\.Nd/s/^\.Nm evparallel::\([^ ]*\).*/\1/p' -e '/^\.Sh NAME/,/^\.Nd/s/^\.Nm \(EVPARALLEL_[A-Z_]*\).*/\1/p' "$page"
done | sort -u >"$tmp/names"
looked_at "$(grep -c . "$tmp/names")" 'names under NAME'
grep -o '`[^`]*`' "$sources/doc/index.md" | tr -d '`' | sed 's/()$//' | sort -u >"$tmp/tasks"
comm -23 "$tmp/names" "$tmp/tasks" >"$tmp/unnamed"
empty 'doc/index.md has every name under NAME' "$tmp/unnamed"

# All public names are in names.html.
(cd "$sources" && cat include/evparallel/*.hpp include/evparallel/version.hpp.in | awk -f t/gates/declarations.awk) |
	sed -n -e '/[ :]\([A-Za-z_]*\)::\1$/d' -e 's/^[a-oq-z][a-z]* //p' | sort -u >"$tmp/declared"
sed -n 's/^names.html a id //p' "$tmp/tags" | sort -u >"$tmp/listed"
looked_at "$(grep -c . "$tmp/declared")" 'declared names'
check 'names.html has every public name' diff "$tmp/declared" "$tmp/listed"

# Programs and pages name each other.
for page in $(grep '^examples/' "$tmp/pages"); do
	for to in $(sed -n "s|^$page \(evparallel[a-z_.0-9]*\.html\)$|\1|p" "$tmp/links"); do
		grep -q -x -F "$to $page" "$tmp/links" || echo "$to does not name $page"
	done
	grep -q "^$page evparallel" "$tmp/links" || echo "$page names no page"
done >"$tmp/oneway"
empty 'examples and manual pages link to each other' "$tmp/oneway"

# ---- what is left of the sources ----------------------------------------------------------------

# Text outside of <pre> and <code> with the marks of Markdown or mdoc; text of sources with a different number of lines.
awk '
	FNR == 1 { inside = 0; next }
	{
		cut = index($0, ">")
		tag = substr($0, 1, cut - 1)
		text = substr($0, cut + 1)
		if (tag ~ /^(pre|code|title)/) inside++
		if (tag ~ /^\/(pre|code|title)/) inside--
		if (inside) next
		if (text ~ /```|`[^`]+`|\]\(|\*\*|(^|\n)(#+ |\| |[-*] |\|--)|(^|\n)\.[A-Z][a-z]( |\n)|\\(&|fB|fR|e|\(|\[)/) {
			gsub(/\n/, " ", text)
			print FILENAME ": " substr(text, 1, 100)
		}
	}' RS='<' $(cat "$tmp/pages") >"$tmp/unconverted"
empty 'nothing is left of Markdown and mdoc' "$tmp/unconverted"

for page in $(grep -E '^(examples/.*\.cpp|include/.*\.hpp)\.html$' "$tmp/pages"); do
	file=$sources/${page%.html}
	case $page in */version.hpp.html) file=$here/${page%.html} ;; esac
	sed -n -e 's/.*<code><span class="l"/<span class="l"/' -e '/^<span class="l"/p' "$page" |
		sed -e 's/<[^>]*>//g' -e 's/&lt;/</g' -e 's/&gt;/>/g' -e 's/&amp;/\&/g' | cmp -s - "$file" || echo "$page"
done >"$tmp/changed"
empty 'the pages of sources have the text of the sources' "$tmp/changed"

# ---- install ------------------------------------------------------------------------------------

cd "$here"
check 'make install-html' env MAKEFLAGS= MAKELEVEL= "$MAKE" -s -j1 install-html html_folder="$tmp/html" htmldir="$tmp/doc/evparallel"
check 'all files are installed' diff -r "$tmp/html" "$tmp/doc/evparallel"
check 'make uninstall-html' env MAKEFLAGS= MAKELEVEL= "$MAKE" -s -j1 uninstall-html htmldir="$tmp/doc/evparallel"
find "$tmp/doc" -mindepth 1 >"$tmp/left"
empty 'all files are uninstalled' "$tmp/left"
finish
