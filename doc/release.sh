#!/bin/sh
# release.sh --check: checks that the source tree can become a release; changes nothing.
# release.sh FOLDER: makes the release of this build tree in FOLDER, which it removes first.  It stops at the first step
# that fails, and neither tags nor pushes: it prints the commands for that.
#
# doc/releasing.md explains the rules.  Environment: srcdir; for a release also MAKE and version, that of ./configure.
set -eu
LC_ALL=C
export LC_ALL

srcdir=${srcdir:-.}
say() { echo "release: $*"; }
stop() {
	echo "release: stopped: $1" >&2
	shift
	for line; do echo "release:   $line" >&2; done
	exit 1
}

# A line of the source tree, for a message.
first_line() { sed -n 1p "$srcdir/$1"; }

# ---- checks -------------------------------------------------------------------------------------

check_clone() {
	test "$(git -C "$srcdir" rev-parse --is-inside-work-tree 2>/dev/null)" = true || stop "$srcdir is no clone: a release is made of a commit"
}

check_version() {
	released=$(cat "$srcdir/VERSION")
	echo "$released" | grep -qxE '(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*)){2}' ||
		stop "VERSION is \"$released\", which is not MAJOR.MINOR.PATCH"
	test -z "${version-}" || test "$version" = "$released" ||
		stop "this tree is configured for version $version, and VERSION says $released" 'run ./configure again'
}

# The first line of NEWS is "VERSION - YEAR-MONTH-DAY", and there is text below it.
check_news() {
	head=$(first_line NEWS)
	test "${head%% *}" = "$released" ||
		stop "NEWS begins with \"$head\", and VERSION says $released" "begin NEWS with \"$released - $(date -u +%Y-%m-%d)\" and the changes"
	date=${head#"$released" - }
	echo "$date" | grep -qxE '[0-9]{4}-[0-9]{2}-[0-9]{2}' && date -d "$date" >/dev/null 2>&1 ||
		stop "NEWS has no date of release: \"$head\"" "the line is \"$released - $(date -u +%Y-%m-%d)\" on the day of the release"
	awk 'NR > 1 && /^[^ ]/ { exit } NR > 1 && NF { n++ } END { exit !n }' "$srcdir/NEWS" ||
		stop "NEWS has no entry for $released: there is nothing below its first line"
}

# VERSION is the only place of the version.  All others get it from configure, or state none.
check_other_places() {
	(cd "$srcdir" && grep -nE 'not released yet|([Vv]ersion|evparallel[- ]v?)[ -]?[0-9]+\.[0-9]+\.[0-9]+' \
		README.md CONTRIBUTING.md doc/*.md src/README.md t/README.md bench/README.md man/*.[1-9] 2>/dev/null || :) |
		grep -v '^doc/releasing\.md:' >"$work/places" || :
	test ! -s "$work/places" || stop 'a text states a version, which will be out of date:' "$(cat "$work/places")"
	(cd "$srcdir" && grep -n '^\.Os .' man/*.[1-9] || :) >"$work/places"
	test ! -s "$work/places" || stop 'a manual page states a version in its .Os:' "$(cat "$work/places")"
	(cd "$srcdir" && git ls-files -z -- '*.in' | xargs -0 grep -nE "(^|[^0-9.])$(echo "$released" | sed 's/\./\\./g')([^0-9.]|\$)" || :) >"$work/places"
	test ! -s "$work/places" || stop 'a template states the version; it is @PACKAGE_VERSION@ there:' "$(cat "$work/places")"
}

# Texts and rules of the build may name the series, MAJOR.MINOR, which is in the soname: it must be the current one.
check_series() {
	(cd "$srcdir" && git ls-files -z -- '*.md' 'man/*' t/projects ':!doc/releasing.md' | xargs -0 grep -noE \
		'libevparallel(-throw)?-?[0-9]+\.[0-9]+|find_package\(evparallel [0-9]+\.[0-9]+' || :) |
		grep -vE "[^0-9.]$(echo "${released%.*}" | sed 's/\./\\./g')\$" >"$work/places" || :
	test ! -s "$work/places" || stop "a text names another series than ${released%.*}:" "$(cat "$work/places")"
}

# The Debian packages, if the tree has them: "evparallel (VERSION-REVISION) DISTRIBUTION; ...".  The name of the library's
# package has the numbers of its soname.
check_debian() {
	test -d "$srcdir/debian" || return 0
	head=$(first_line debian/changelog)
	packaged=$(echo "$head" | sed -n 's/^evparallel (\([0-9]*:\)\{0,1\}\([^)-]*\)\(-[^)]*\)\{0,1\}).*/\2/p')
	test "$packaged" = "$released" || stop "debian/changelog begins with \"$head\", and VERSION says $released" 'dch -v makes an entry'
	case $head in *') UNRELEASED;'*) stop "debian/changelog has the distribution UNRELEASED: \"$head\"" 'dch -r sets it' ;; esac
	soname=$(sed -n 's/^Package: libevparallel-\{0,1\}\([0-9][0-9.]*\).*/\1/p' "$srcdir/debian/control" | sort -u)
	case $soname in
	'' | "${released%.*}") ;;
	*) stop "debian/control has the package of soname $soname, and version $released has the soname ${released%.*}" 'rename the package and its files in debian/' ;;
	esac
}

check_clean() {
	(cd "$srcdir" && git status --porcelain) >"$work/status"
	test ! -s "$work/status" || stop 'the tree is not committed:' "$(head -n 20 "$work/status")"
	commit=$(git -C "$srcdir" rev-parse HEAD)
	tagged=$(git -C "$srcdir" rev-parse -q --verify "refs/tags/v$released^{commit}" || :)
	test -z "$tagged" || test "$tagged" = "$commit" || stop "the tag v$released exists and is another commit" 'raise the number in VERSION'
}

work=$(mktemp -d "${TMPDIR:-/tmp}/release.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

check_clone
check_version
check_news
check_other_places
check_series
check_debian
check_clean
say "$released: the version, NEWS and the tree are in order (commit $(git -C "$srcdir" rev-parse --short HEAD))"
test "$1" != --check || exit 0

# ---- the release --------------------------------------------------------------------------------

out=$1
name=evparallel-$released
has_goal() { grep -q "^$1:" GNUmakefile; }

steps() {
	echo "1. make distcheck: $name.tar.gz is built, tested, installed and removed again"
	echo '2. make dist: the second tarball is the same, byte for byte'
	echo "3. make html: $name-html.tar.gz"
	if has_goal check-abi; then echo '4. make check-abi: the ABI is that of the checked-in file'; else echo '4. skipped: there is no goal check-abi'; fi
	if has_goal check-packages; then echo '5. make check-packages: the Debian packages'; else echo '5. skipped: there is no goal check-packages'; fi
	echo '6. SHA256SUMS'
}
say 'the steps:'
steps | sed 's/^/release:   /'

# step NUMBER COMMAND...
step() {
	line=$(steps | sed -n "s/^$1\. //p")
	say "step $1: $line"
	number=$1
	shift
	"$@" || stop "step $number has failed: $line" 'its output is above; nothing was signed, tagged or pushed'
}

rm -rf "$out"
mkdir -p "$out"

distcheck() { "$MAKE" distcheck && cp "$name.tar.gz" "$work/first.tar.gz"; }
same_again() {
	"$MAKE" dist || return
	cmp "$name.tar.gz" "$work/first.tar.gz" || return
	mv "$name.tar.gz" "$out/"
}

# The same date and order as in the tarball of the sources.
html() {
	"$MAKE" html || return
	tar --sort=name --mtime="@$(git -C "$srcdir" log -1 --format=%ct)" --owner=0 --group=0 --numeric-owner --mode=u+rw,go+r-w,a+X \
		--transform "s|^html|$name-html|" -cf "$work/html.tar" html && gzip -9n <"$work/html.tar" >"$out/$name-html.tar.gz"
}

# The goal leaves the packages in the folder debs of the build tree.
packages() {
	"$MAKE" check-packages || return
	for file in debs/*.deb; do test ! -f "$file" || cp "$file" "$out/" || return; done
}
sums() { (cd "$out" && sha256sum -- * >"$work/sums" && mv "$work/sums" SHA256SUMS && sha256sum -c --quiet SHA256SUMS); }

step 1 distcheck
step 2 same_again
step 3 html
if has_goal check-abi; then step 4 "$MAKE" check-abi; fi
if has_goal check-packages; then step 5 packages; fi
step 6 sums

say "$out has:"
(cd "$out" && ls -l | sed -n 's/^/release:   /; 2,$p')
cat <<NEXT
release: look at them.  These commands sign and publish them; none of them was run:
  gpg --armor --detach-sign $out/SHA256SUMS
  git -C $srcdir tag -s v$released -m 'evparallel $released' $commit
  git -C $srcdir push origin v$released
release: then go on with "After the release" in doc/releasing.md
NEXT
