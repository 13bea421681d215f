# source.awk - a C++ source, or with plain=1 any text, as a piece of HTML: one element for each line, with the id L and
# its number.  Comments, texts and directives of the preprocessor have classes, and the names of the library that are
# in the file `names` ("name page") link to their pages.
#
# The state at the end of a line: "" in code, "comment" in a /* comment */, "raw" in a raw string.

BEGIN {
	while (names != "" && (getline line <names) > 0) {
		split(line, word, " ")
		if (!(word[1] in page_of)) page_of[word[1]] = word[2]
	}
	printf "<pre class=\"source\"><code>"
}

function escaped(s) {
	gsub(/&/, "\\&amp;", s)
	gsub(/</, "\\&lt;", s)
	gsub(/>/, "\\&gt;", s)
	return s
}

function marked(class, s) {
	return s == "" ? "" : "<span class=\"" class "\">" escaped(s) "</span>"
}

# Code without comments and texts.
function code(s,    out, name) {
	out = ""
	while (match(s, /(par|evparallel)::[A-Za-z_0-9]+|EVPARALLEL_[A-Z_]+/)) {
		name = substr(s, RSTART, RLENGTH)
		sub(/.*::/, "", name)
		out = out escaped(substr(s, 1, RSTART - 1))
		if (name in page_of)
			out = out "<a href=\"" root page_of[name] ".html\">" substr(s, RSTART, RLENGTH) "</a>"
		else
			out = out substr(s, RSTART, RLENGTH)
		s = substr(s, RSTART + RLENGTH)
	}
	return out escaped(s)
}

# The length of the literal that begins s, quotes included; the rest of the line if it does not end there.
function literal(s, quote,    i, c) {
	for (i = 2; i <= length(s); i++) {
		c = substr(s, i, 1)
		if (c == "\\") i++
		else if (c == quote) return i
	}
	return length(s)
}

function line_of(s,    out, plain_part, i, c, n, before) {
	out = plain_part = before = ""
	if (state == "" && s ~ /^ *#/ && s !~ /\/[\/*]/) return directive(s)
	for (i = 1; i <= length(s); i += n) {
		n = 1
		if (state != "") {
			c = state == "comment" ? "*/" : raw_end
			n = index(substr(s, i), c)
			n = n ? n + length(c) - 1 : length(s)
			out = out marked(state == "comment" ? "c" : "s", substr(s, i, n))
			if (substr(s, i + n - length(c), length(c)) == c) state = ""
			continue
		}
		c = substr(s, i, 1)
		if (c == "/" && substr(s, i + 1, 1) == "/") {
			out = out code(plain_part) marked("c", substr(s, i))
			return out
		}
		if (c == "/" && substr(s, i + 1, 1) == "*") {
			out = out code(plain_part)
			plain_part = ""
			state = "comment"
			n = 0
		} else if (c == "R" && before !~ /[A-Za-z_0-9]/ && match(substr(s, i), /^R"[^( ]*\(/)) {
			out = out code(plain_part) marked("s", substr(s, i, RLENGTH))
			plain_part = ""
			raw_end = ")" substr(s, i + 2, RLENGTH - 3) "\""
			state = "raw"
			n = RLENGTH
		} else if (c == "\"" || (c == "'" && before !~ /[0-9a-fA-F]/)) {
			n = literal(substr(s, i), c)
			out = out code(plain_part) marked("s", substr(s, i, n))
			plain_part = ""
		} else
			plain_part = plain_part c
		before = c
	}
	return out code(plain_part)
}

# The frame turns the name of an included header into a link.
function directive(s,    header) {
	if (match(s, /<[^>]*>/)) {
		header = substr(s, RSTART + 1, RLENGTH - 2)
		return marked("p", substr(s, 1, RSTART)) "<a class=\"In\">" escaped(header) "</a>" marked("p", ">") escaped(substr(s, RSTART + RLENGTH))
	}
	return marked("p", s)
}

{
	printf "<span class=\"l\" id=\"L%d\">%s</span>\n", NR, plain ? escaped($0) : line_of($0)
}

END { print "</code></pre>" }
