#!/bin/sh
# `make check-release` accepts a tree that can be released, and refuses each kind of fault with a text that names it.
. "${srcdir:-.}/t/lib/gate.sh"

if ! command -v git >/dev/null; then
	ok 'the checks of a release # SKIP no git'
	finish
	exit
fi

# A clone with the files that the checks read, as on the day of a release.
released=$(cat "$srcdir/VERSION")
tree=$tmp/tree
mkdir -p "$tree/src" "$tree/t" "$tree/bench"
(cd "$srcdir" && tar -cf - VERSION NEWS README.md CONTRIBUTING.md SECURITY.md doc man src/README.md t/README.md bench/README.md *.in include/evparallel/*.in $(test ! -d debian || echo debian)) |
	tar -C "$tree" -xf -
chmod -R u+w "$tree"   # distcheck has a read-only source tree
rm -f "$tree/config.h.in" "$tree/GNUmakefile.in" "$tree"/debian/*.log
sed -i "1s/.*/$released - 2026-12-24/" "$tree/NEWS"
test ! -d "$tree/debian" || sed -i "1s/.*/evparallel ($released-1) unstable; urgency=medium/" "$tree/debian/changelog"

HOME=$tmp GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null GIT_CEILING_DIRECTORIES=$tmp
export HOME GIT_CONFIG_NOSYSTEM GIT_CONFIG_GLOBAL GIT_CEILING_DIRECTORIES
unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE || :
in_tree() { git -C "$tree" -c user.name=gate -c user.email=gate@localhost "$@"; }
commit() { in_tree add -A && in_tree commit -q --allow-empty -m "$1"; }
in_tree init -q
commit 'a release'

checks() { env srcdir="$tree" version="$1" TMPDIR="$tmp" sh "$srcdir/doc/release.sh" --check; }
check 'a tree in order is accepted' checks "$released"
check 'so is one whose tag is this commit' eval "in_tree tag v$released && checks $released"

# refused TEXT CHANGE EXPECTED [VERSION]: after the change, which is a shell command in the tree, the checks fail with
# the expected text.  The change is undone.
trials=0
refused() {
	trials=$((trials + 1))
	(cd "$tree" && eval "$2")
	case $1 in 'a file'*) ;; *) commit 'a fault' ;; esac
	if checks "${4-}" >"$tmp/said" 2>&1; then
		not_ok "$1 is refused" "$tmp/said"
	elif grep -q -F "release: stopped: $3" "$tmp/said"; then
		ok "$1 is refused"
	else
		not_ok "$1 is refused for its own reason" "$tmp/said"
	fi
	in_tree reset -q --hard "v$released"
	in_tree clean -qfdx
}

refused 'a version that is no number' 'echo 1.0-rc1 >VERSION' 'VERSION is "1.0-rc1"'
refused 'another version than that of configure' : 'this tree is configured for version 99.0.0' 99.0.0
refused 'a raised version without NEWS' 'echo 99.0.0 >VERSION' 'NEWS begins with'
refused 'NEWS without a date' "sed -i '1s/ - .*/ - not released yet/' NEWS" 'NEWS has no date of release'
refused 'NEWS with a date that does not exist' "sed -i '1s/ - .*/ - 2026-02-30/' NEWS" 'NEWS has no date of release'
refused 'NEWS without an entry' "printf '%s\n' \"\$(head -n 1 NEWS)\" '' '0.0.1 - 2020-01-01' '' '  - It began.' >NEWS.new && mv NEWS.new NEWS" 'NEWS has no entry'
refused 'a version in a text' "echo 'This is version 0.0.9.' >>README.md" 'a text states a version'
refused 'a text that was not updated' "echo 'It is not released yet.' >>README.md" 'a text states a version'
refused 'a version in a manual page' "sed -i 's/^\.Os\$/.Os evparallel 0.0/' man/evparallel.7" 'a manual page states a version'
refused 'a version in a template' "echo 'Version: $released' >>evparallel.pc.in" 'a template states the version'
refused 'a soname of another series' "echo 'The file is libevparallel-0.0.so.' >>README.md" 'a text names another series'
refused 'a file that is not committed' "echo >>NEWS" 'the tree is not committed'
refused 'a file that git does not know' 'echo >new.cpp' 'the tree is not committed'
refused 'a tag of another commit' 'echo >>README.md' "the tag v$released exists"
refused 'a Debian changelog of another version' 'mkdir -p debian && echo "evparallel (0.0.9-1) unstable; urgency=medium" >debian/changelog' 'debian/changelog begins with'
refused 'a Debian changelog without a distribution' "mkdir -p debian && echo 'evparallel ($released-1) UNRELEASED; urgency=medium' >debian/changelog" 'debian/changelog has the distribution UNRELEASED'
refused 'a Debian package of another soname' "mkdir -p debian && echo 'evparallel ($released-1) unstable; urgency=medium' >debian/changelog && echo 'Package: libevparallel-9.9' >debian/control" 'debian/control has the package of soname 9.9'
looked_at "$trials" 'faults'

# ---- the steps, with a make that only pretends ---------------------------------------------------

cat >"$tmp/make" <<'MAKE'
#!/bin/sh
test "$1" != "$broken" || { echo "$1 is broken"; exit 2; }
name=evparallel-$version
case $1 in
distcheck) echo tarball >"$name.tar.gz" ;;
dist) if test "$broken" = bytes; then echo other; else echo tarball; fi >"$name.tar.gz" ;;
html) mkdir -p html && echo page >html/index.html ;;
check-packages) mkdir -p debs && echo package >"debs/libevparallel_$version.deb" ;;
*) echo "no goal $1"; exit 2 ;;
esac
MAKE
chmod +x "$tmp/make"
mkdir "$tmp/build"
echo 'check-packages:' >"$tmp/build/GNUmakefile"
sources=$(cd "$srcdir" && pwd)
makes() {
	(cd "$tmp/build" && env broken="$1" srcdir="$tree" version="$released" MAKE="$tmp/make" TMPDIR="$tmp" sh "$sources/doc/release.sh" release)
}
in_tree tag >"$tmp/tags"
check 'a release is made' makes nothing
(cd "$tmp/build/release" && ls) >"$tmp/made"
printf '%s\n' SHA256SUMS "evparallel-$released-html.tar.gz" "evparallel-$released.tar.gz" "libevparallel_$released.deb" >"$tmp/expected"
check 'it has the tarball, the manual, the packages and their sums' diff "$tmp/expected" "$tmp/made"
check 'the sums are right' sh -c 'cd "$1" && sha256sum -c SHA256SUMS && test "$(wc -l <SHA256SUMS)" = 3' sh "$tmp/build/release"
for fault in distcheck:1 bytes:2 html:3 check-packages:5; do
	if makes "${fault%:*}" >"$tmp/steps" 2>&1; then
		not_ok "a release stops at step ${fault#*:}" "$tmp/steps"
	else
		check "a release stops at step ${fault#*:}" grep "^release: stopped: step ${fault#*:} has failed" "$tmp/steps"
	fi
done
in_tree tag >"$tmp/tags.after"
check 'no step makes a tag' diff "$tmp/tags" "$tmp/tags.after"

mv "$tree/.git" "$tmp/git"
checks '' >"$tmp/refusal" 2>&1 || :
check 'a tree that is no clone is refused' grep -F 'is no clone' "$tmp/refusal"
finish
