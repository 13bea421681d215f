# declarations.awk - prints the declarations of C++ files, for gates. It relies on the layout that clang-format makes.
#
# Prints "kind qualified::name" of each, without namespace evparallel. Kinds: type, function, value (a field, an
# enumerator, a constant), macro, unless it is undefined again; private for each of these in a private part of a class.
# Operators and destructors have no name of their own, forward declarations are ignored, and so are the members of
# namespace detail and of namespaces without a name.
#
# With -v bodies=1 it prints "qualified::name text" for each function that has a body, in all namespaces, with head and
# body on one line. operator() is called operator_call there.

# Removes the first pair of brackets in s, with everything nested in it.
function without(s, left, right,    i, c, deep, round, from) {
	for (i = index(s, left); i <= length(s); i++) {
		c = substr(s, i, 1)
		if (c == "(") round++
		if (c == ")") round--
		if (round > 0) continue
		if (c == left && deep++ == 0) from = i
		if (c == right && substr(s, i - 1, 1) != "-" && --deep == 0)
			return substr(s, 1, from - 1) " " substr(s, i + 1)
	}
	return substr(s, 1, index(s, left) - 1)
}
function before_value(s,    i, c, deep) {
	for (i = 1; i <= length(s); i++) {
		c = substr(s, i, 1)
		if (c == "<" || c == "(") deep++
		if (c == ">" || c == ")") deep--
		if (c == "=" && deep == 0) return substr(s, 1, i - 1)
	}
	return s
}
function tell(kind, name,    i, path) {
	for (i = 1; i <= depth; i++) {
		if (what[i] == "body" || (label[i] == "detail" && !bodies)) return
		if (shut[i]) kind = "private"
		if (label[i] != "evparallel" && label[i] != "detail") path = path label[i] "::"
	}
	if (bodies) told = path name
	else if (depth > 0) print kind, path name
}
function plain(s) {
	gsub(/\[\[[a-z_]*\]\]|EVPARALLEL_API|alignas\([^)]*\)/, " ", s)
	gsub(/[ \t\n]+/, " ", s)
	sub(/^ /, "", s)
	while (s ~ /^template </) { s = without(s, "<", ">"); sub(/^template */, "", s) }
	sub(/ $/, "", s)
	return s
}
# A declaration that does not declare a class, an enumeration or a namespace.
function declare(s,    name) {
	s = plain(s)
	if (s == "" || s ~ /^(friend|static_assert|namespace|extern "C"|class [A-Za-z_0-9]*$|struct [A-Za-z_0-9]*$)/) return
	if (bodies) gsub(/operator\(\)/, "operator_call", s)
	else if (s ~ /operator/) return
	if (s ~ /^using namespace/ || s ~ /^(constexpr |explicit |virtual )*~/) return
	if (s ~ /^using /) {
		sub(/^using /, "", s)
		name = s
		sub(/[ =].*/, "", name)
		return tell("type", name)
	}
	s = before_value(s)
	while (s ~ /</) s = without(s, "<", ">")
	if (s ~ /^[^(]*\(\*[A-Za-z_0-9]+\)/) {
		sub(/\).*/, "", s)
		sub(/.*\*/, "", s)
		return tell("value", s)
	}
	if (s ~ /\(/) {
		sub(/ *\(.*/, "", s)
		if (bodies) sub(/.*[^A-Za-z_0-9:]/, "", s)
		else sub(/.*[^A-Za-z_0-9]/, "", s)
		if (s != "") tell("function", s)
		return
	}
	sub(/ *(\[.*)?$/, "", s)
	sub(/.*[^A-Za-z_0-9]/, "", s)
	if (s != "") tell("value", s)
}
function enumerators(s,    n, i, parts) {
	n = split(s, parts, ",")
	for (i = 1; i <= n; i++) {
		sub(/=.*/, "", parts[i])
		gsub(/[ \t\n]/, "", parts[i])
		if (parts[i] != "") tell("value", parts[i])
	}
}
function open_scope(s,    name) {
	s = plain(s)
	depth++
	shut[depth] = 0
	label[depth] = ""
	what[depth] = "body"
	if (s ~ /^(inline )?namespace/) {
		what[depth] = "namespace"
		label[depth] = s
		sub(/.*namespace */, "", label[depth])
		sub(/^evparallel::/, "", label[depth])
		if (label[depth] == "") label[depth] = "detail"   # without a name: not public
	} else if (s ~ /^(class|struct|union|enum|enum class)( [A-Za-z_0-9]+)?($| final| *[:<])/) {
		what[depth] = s ~ /^enum/ ? "enum" : "class"
		name = s
		sub(/^enum class /, "", name)
		sub(/^[a-z]* /, "", name)
		sub(/[^A-Za-z_0-9].*/, "", name)
		depth--
		tell("type", name)
		depth++
		label[depth] = name
		shut[depth] = s ~ /^class/
	} else {
		depth--
		declare(s)
		depth++
	}
}
/^ *#/ {
	if ($1 == "#define" && $2 ~ /^EVPARALLEL_/ && $2 !~ /^EVPARALLEL_DETAIL_/) { sub(/\(.*/, "", $2); macros[$2] }
	if ($1 == "#undef") delete macros[$2]
	while (/\\$/) getline
	next
}
{
	gsub(/\\./, "")
	gsub(/"[^"]*"/, "\"\"")
	gsub(/\047[^\047]*\047/, "0")
	sub(/\/\/.*/, "")
	text = text $0 "\n"
}
END {
	if (!bodies) for (name in macros) print "macro", name
	name = ""
	gsub(/\/\*[^*]*\*\//, "", text)
	for (i = 1; i <= length(text); i++) {
		c = substr(text, i, 1)
		if (c == "(") round++
		if (c == ")") round--
		if (c == "{" && round == 0) {
			told = ""
			open_scope(head)
			if (bodies && told != "" && what[depth] == "body") {
				name = told
				outermost = depth
				from = i - length(head)
			}
			head = ""
		} else if (c == "}" && round == 0) {
			if (name != "" && depth == outermost) {
				body = substr(text, from, i - from + 1)
				gsub(/[ \t\n]+/, " ", body)
				print name, body
				name = ""
			}
			if (what[depth] == "enum") enumerators(head)
			depth--
			head = ""
		} else if (c == ";" && round == 0) {
			if (what[depth] != "body") declare(head)
			head = ""
		} else if (c == ":" && round == 0 && plain(head) ~ /^(public|private|protected)$/) {
			shut[depth] = plain(head) != "public"
			head = ""
		} else head = head c
	}
}
