# frame.awk - makes a whole page of a piece of HTML that mandoc, lowdown or source.awk has written.  It gives the page
# its head, its navigation and a list of its sections, and turns the names of pages, files and headers into links.
#
# Variables: title, version; root: the way to the first folder, "" or "../"; self: the page itself, without root;
# kind: man, text or source; targets: a file with lines "NAME<TAB>PAGE"; more: a piece of HTML for the end of the page.
#
# A record is a tag and the text behind it: TAG>TEXT.

BEGIN {
	while ((getline line <targets) > 0) {
		cut = index(line, "\t")
		target[substr(line, 1, cut - 1)] = substr(line, cut + 1)
	}
	RS = "<"
}

NR == 1 || /^!--/ { next }
{
	cut = index($0, ">")
	n++
	tag[n] = substr($0, 1, cut - 1)
	text[n] = substr($0, cut + 1)
}

function attribute(t, name) {
	if (!match(t, name "=\"[^\"]*\"")) return ""
	return substr(t, RSTART + length(name) + 2, RLENGTH - length(name) - 3)
}

function link_to(page) { return "<a href=\"" root page "\">" }

# The text with the names of manual pages as links.
function with_pages(s,    out, name) {
	out = ""
	while (match(s, /evparallel[a-z_]*\([37]\)/)) {
		name = substr(s, RSTART, RLENGTH)
		out = out substr(s, 1, RSTART - 1) (name in target && target[name] != self ? link_to(target[name]) name "</a>" : name)
		s = substr(s, RSTART + RLENGTH)
	}
	return out s
}

# A .Sx of mdoc names a section of the same page.  If there is none, the page that is named next, or before, has it.
function other_section(i, id,    k) {
	for (k = i + 1; k <= i + 4 && k <= n; k++)
		if (tag[k] ~ /class="Xr" href="evparallel/) return attribute(tag[k], "href") "#" id
	for (k = i - 1; k >= i - 4 && k > 0; k--)
		if (tag[k] ~ /class="Xr" href="evparallel/) return attribute(tag[k], "href") "#" id
	return "#" id
}

function heading_text(i,    s, end) {
	end = "/" substr(tag[i], 1, 2)
	s = text[i]
	for (i++; i <= n && tag[i] != end; i++) s = s text[i]
	gsub(/[ \n]+/, " ", s)
	return s
}

END {
	# The title of a manual page stands in a table in front; the titles below it are those of sections.
	if (kind == "man")
		for (i = 1; i <= n; i++) {
			if (tag[i] ~ /^table class="head"/) for (; i <= n && tag[i] != "/table"; i++) tag[i] = text[i] = ""
			if (tag[i] == "/table") { tag[i] = ""; break }
		}
	for (i = 1; i <= n; i++) {
		if (kind == "man" && tag[i] ~ /^\/?h2/) sub(/h2/, "h3", tag[i])
		if (kind == "man" && tag[i] ~ /^\/?h1/) sub(/h1/, "h2", tag[i])
		if (match(tag[i], / id="[^"]*"/)) there[attribute(tag[i], "id")]
	}

	print "<!DOCTYPE html>"
	print "<html lang=\"en\">"
	print "<head>"
	print "<meta charset=\"utf-8\"/>"
	print "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>"
	print "<title>" title (title == "evparallel" ? " " version : " - evparallel " version) "</title>"
	print "<link rel=\"stylesheet\" href=\"" root "style.css\"/>"
	print "</head>"
	print "<body class=\"" kind "\">"
	print "<header>"
	print "<nav class=\"site\">"
	entry("index.html", "evparallel")
	entry("doc/tutorial.html", "Tutorial")
	entry("pages.html", "Pages")
	entry("names.html", "Names")
	entry("headers.html", "Headers")
	entry("examples.html", "Examples")
	print "</nav>"
	print "</header>"
	contents()
	print "<main>"
	if (kind != "text") print "<h1>" title "</h1>"
	body()
	RS = "\n"
	while (more != "" && (getline line <more) > 0) print line
	print "</main>"
	print "<footer>evparallel " version "</footer>"
	print "</body>"
	print "</html>"
}

function entry(page, name) {
	if (page == self)
		print "<b>" name "</b>"
	else
		print link_to(page) name "</a>"
}

function contents(    i, level, count, list) {
	list = ""
	for (i = 1; i <= n; i++)
		if (tag[i] ~ /^h[23] / && attribute(tag[i], "id") != "") {
			count++
			level = substr(tag[i], 2, 1)
			list = list "<li class=\"level" level "\"><a href=\"#" attribute(tag[i], "id") "\">" heading_text(i) "</a></li>\n"
		}
	if (count > 2) printf "<nav class=\"contents\">\n<p>On this page</p>\n<ul>\n%s</ul>\n</nav>\n", list
}

function body(    i, in_link, id, name) {
	for (i = 1; i <= n; i++) {
		if (tag[i] ~ /^a class="In"/) {
			name = text[i]
			if (name in target && target[name] != self) sub(/^a/, "a href=\"" root target[name] "\"", tag[i])
			else { sub(/^a/, "span", tag[i]); sub(/^\/a/, "/span", tag[i + 1]) }
		}
		if (tag[i] ~ /^a .*class="Sx"|^a class="Sx"/) {
			id = attribute(tag[i], "href")
			sub(/^#/, "", id)
			if (!(id in there)) tag[i] = "a class=\"Sx\" href=\"" other_section(i, id) "\""
		}
		if (tag[i] ~ /^a /) in_link = 1
		if (tag[i] == "/a") in_link = 0
		name = text[i]
		if (!in_link && (tag[i] == "code" || tag[i] ~ /^span class="Pa"/) && tag[i + 1] ~ /^\/(code|span)$/ && name in target && target[name] != self)
			text[i] = link_to(target[name]) name "</a>"
		else if (!in_link && tag[i] !~ /^(title|script|style)/)
			text[i] = with_pages(name)
		if (tag[i] != "") printf "<%s>%s", tag[i], text[i]
	}
}
