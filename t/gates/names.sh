#!/bin/sh
# Every public name is in the manual: the names that the headers declare outside of namespace detail, and those that the
# shared library exports. Every public header is in the list of evparallel(7).
. "${srcdir:-.}/t/lib/gate.sh"
cd "$srcdir"

names_of() {
	cat "$@" | awk -f t/gates/declarations.awk
}

# ---- the reader of headers works -----------------------------------------------------------------

cat >"$tmp/sample.hpp" <<'SAMPLE'
#define EVPARALLEL_SAMPLE \
  "; class Wrong {"
#define EVPARALLEL_OF_THIS_FILE 1
#undef EVPARALLEL_OF_THIS_FILE
namespace evparallel {
class Foreign;
namespace detail {
struct Hidden { int field; };
}  // namespace detail
enum class Colour : int { red = 1, green /* { */, };  // blue
const char* to_text(Colour) noexcept;
template <class T, class = std::enable_if_t<(sizeof(T) > 1)>>
struct Box;
template <class R, class... A>
class EVPARALLEL_API Box<R(A...)> : public detail::Hidden {
public:
  using item = R;
  Box() noexcept : in_{} {}
  ~Box();
  explicit operator bool() const noexcept { return true; }
  template <class F>
  [[nodiscard]] R open(F&& f, std::map<int, int> m = {}) const { struct Local { int no; }; return f(); }
  std::map<int, std::vector<int>> contents{};
  int count = 0;
  R (*get)(int, A...);
  struct Lid { bool shut = false; };
  static constexpr std::size_t limit = std::size_t{1} << 20;
private:
  friend class Foreign;
  void secret();
  int in_;
};
template <class Sig, class F>
detail::Fn<Sig, F> wrap(F f) {
  return {std::move(f)};
}
void run(void (*callback)(int), const Box<int>& box = {});
template <class T>
constexpr bool fits = sizeof(T) < 8;
}  // namespace evparallel
SAMPLE
cat >"$tmp/expected" <<'EXPECTED'
function Box::Box
function Box::open
function run
function to_text
function wrap
macro EVPARALLEL_SAMPLE
private Box::in_
private Box::secret
type Box
type Box::Lid
type Box::item
type Colour
value Box::Lid::shut
value Box::contents
value Box::count
value Box::get
value Box::limit
value Colour::green
value Colour::red
value fits
EXPECTED
names_of "$tmp/sample.hpp" | sort -u >"$tmp/found"
check 'the sample header is parsed correctly' diff -u "$tmp/expected" "$tmp/found"

# ---- names ---------------------------------------------------------------------------------------

names_of include/evparallel/*.hpp include/evparallel/detail/*.hpp include/evparallel/version.hpp.in | sort -u >"$tmp/all"
grep -v '^private ' "$tmp/all" >"$tmp/declared"
sed -n 's/^private /function /p' "$tmp/all" >"$tmp/private"
# An exported name is also declared; it is listed here in case the reader of headers misses it.
sed -n -e '/::detail::/d' -e '/operator/d' -e '/~/d' -e 's/\[abi:[a-z0-9]*\]//g' -e 's/^evparallel::\([A-Za-z_0-9:]*\).*/function \1/p' t/gates/symbols.txt |
	sort -u | grep -v -x -F -f "$tmp/private" >"$tmp/exported"
sort -u "$tmp/declared" "$tmp/exported" >"$tmp/names"
looked_at "$(wc -l <"$tmp/declared")" 'declared names'
looked_at "$(wc -l <"$tmp/exported")" 'exported names'

# ---- headers -------------------------------------------------------------------------------------

# The list under HEADERS in evparallel(7) has the headers that are installed beside evparallel.hpp, which includes all
# of them.
awk '/^\.Sh/ { here = ($2 == "HEADERS") } here && /^\.It Pa / { print $3 }' man/evparallel.7 | sort >"$tmp/listed"
for header in include/evparallel/*.hpp include/evparallel/version.hpp.in; do
	header=${header##*/}
	test "$header" = evparallel.hpp || echo "${header%.in}"
done | sort -u >"$tmp/installed"
looked_at "$(wc -l <"$tmp/installed")" 'public headers'
check 'evparallel(7) lists the public headers' diff -u "$tmp/installed" "$tmp/listed"

# ---- the pages -----------------------------------------------------------------------------------

# "page word" for each word that a page marks as a name, and for each word of its literal displays; "page =word" for
# each name under NAME. Examples do not count. Template arguments are removed.
marked() {
	awk '
	function words(s, mark,    n, i, parts) {
		while (s ~ /<[^<>]*>/) gsub(/<[^<>]*>/, "", s)
		gsub(/evparallel::/, "", s)
		n = split(s, parts, /[^A-Za-z_0-9:]+/)
		for (i = 1; i <= n; i++) if (parts[i] != "") print FILENAME, mark parts[i]
	}
	/^\.Sh/ { examples = ($2 == "EXAMPLES"); display = 0 }
	examples { next }
	/^\.Bd -literal/ { display = 1; next }
	/^\.Ed/ { display = 0 }
	display { words($0, ""); next }
	/^\.Nm evparallel::/ { words($2, "="); words($2, ""); next }
	/^\./ {
		on = 0
		$1 = substr($1, 2)
		for (i = 1; i <= NF; i++) {
			if ($i ~ /^(Fn|Fo|Ft|Fa|Vt|Va|Dv|Li|Ic|Cm)$/) on = 1
			else if ($i ~ /^(No|Ta|Xr|Pa|Er|Em|Sy|Ns)$/) on = 0
			else if (on) words($i, "")
		}
	}' "$@"
}
marked man/*.[1-9] | sort -u >"$tmp/marked"
looked_at "$(wc -l <"$tmp/marked")" 'words of the pages'

# A member counts as Class::member in any page, or alone in a page that has the class under NAME.
awk '
	NR == FNR { if ($2 ~ /^=/) home[substr($2, 2)] = home[substr($2, 2)] " " $1; else { has[$1, $2]; any[$2] } next }
	{
		name = $2
		if (name in any) next
		n = split(name, parts, "::")
		if (n > 1 && (parts[n - 1] "::" parts[n]) in any) next
		for (i = 1; i < n; i++) {
			pages = split(home[parts[i]], page, " ")
			for (p = 1; p <= pages; p++) if ((page[p], parts[n]) in has) next
		}
		print $1, name
	}' "$tmp/marked" "$tmp/names" >"$tmp/missing"
empty 'every public name is in the manual' "$tmp/missing"
finish
