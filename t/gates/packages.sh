#!/bin/sh
# The Debian packages are built from the files of a release, have no fault that lintian finds, and are installed in a bare
# root with nothing but its package registry; the tests of debian/tests pass there, and no file is left when they are
# removed. Takes minutes, needs root, and has a goal of its own, `make check-packages`, which leaves the packages in debs/.
. "${srcdir:-.}/t/lib/gate.sh"

# Not a part of `make deps`, as only this gate needs them.
for program in dpkg-buildpackage:dpkg-dev dh:debhelper lintian:lintian debootstrap:debootstrap unshare:util-linux; do
	command -v "${program%%:*}" >/dev/null || PATH=$PATH:/usr/sbin:/sbin command -v "${program%%:*}" >/dev/null || echo "${program#*:}"
done >"$tmp/missing"
if test -s "$tmp/missing"; then
	echo "Bail out! Please run: apt-get install" $(cat "$tmp/missing")
	exit 99
fi
PATH=$PATH:/usr/sbin:/sbin
if test "$(id -u)" != 0 || ! unshare --mount true; then
	echo 'Bail out! A bare root needs root, and the right to mount'
	exit 99
fi

# $tmp/build: the packages of the files that `make dist` packs, which are their orig.tar.gz.
version=$(cat "$srcdir/VERSION")
mkdir "$tmp/build"
tree=$tmp/build/evparallel-$version
check 'the files of a release' env MAKEFLAGS= MAKELEVEL= "$MAKE" -s distdir distdir="$tree"
check 'debian/changelog has the version of VERSION' sh -c 'dpkg-parsechangelog -l "$1/debian/changelog" -S Version | grep -x "$2-[0-9]*"' - "$tree" "$version"
tar -C "$tmp/build" -czf "$tmp/build/evparallel_$version.orig.tar.gz" "evparallel-$version"
check 'dpkg-source makes the source package' sh -c 'cd "$1" && dpkg-source -b "$2"' - "$tmp/build" "$tree"

# As the packages are built for everybody: not with the compiler and the options of this build. Without the tests, which
# `make check` runs.
check 'dpkg-buildpackage makes the packages' sh -c 'unset CXX CC CXXFLAGS CFLAGS LDFLAGS MAKEFLAGS MAKELEVEL PKG_CONFIG srcdir MAKE
	cd "$1" && DEB_BUILD_PROFILES=nocheck DEB_BUILD_OPTIONS="nocheck parallel=$2" dpkg-buildpackage -us -uc -b' - "$tree" "$(nproc)"
tail -n 20 "$tmp/said" >"$tmp/tail"
debs=$(find "$tmp/build" -name '*.deb' ! -name '*-dbgsym_*' | sort)
if test "$(echo "$debs" | sed -e 's|.*/||' -e 's|_.*||' | tr '\n' ' ')" != 'libevparallel-0.1 libevparallel-dev libevparallel-doc '; then
	not_ok "these are not the three packages: $debs" "$tmp/tail"
	finish
	exit
fi
ok 'they are the library, its development files, and its documentation'

# Reasons of overridden tags are in debian/*.lintian-overrides.
check 'lintian finds neither an error nor a warning' sh -c 'lintian --allow-root --fail-on error,warning --tag-display-limit 0 "$1"/*.dsc "$1"/*.changes' - "$tmp/build"
cat "$tmp/said"

# What is mounted for the root is mounted for its commands only.
root=$tmp/root
release=$(. /etc/os-release && echo "$VERSION_CODENAME")
in_root() {
	unshare --mount --pid --fork --kill-child --mount-proc="$root/proc" chroot "$root" env -i HOME=/root LC_ALL=C.UTF-8 \
		PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive ${http_proxy:+http_proxy="$http_proxy"} "$@" </dev/null
}
get() { in_root apt-get -q -y --no-install-recommends "$@"; }
files() { find "$root" -xdev -path "$root/var/cache" -prune -o -path "$root/var/lib" -prune -o -path "$root/var/log" -prune -o -path "$root/etc/ld.so.cache" -prune -o -print | sed "s|^$root||" | sort; }
check "a bare root of $release" unshare --mount debootstrap --variant=minbase "$release" "$root" "${DEBIAN_MIRROR:-http://deb.debian.org/debian}"
mkdir -p "$root/packages" "$root/source/t"
cp $debs "$root/packages"
cp -R "$tree/debian" "$tree/examples" "$root/source"
cp -R "$tree/t/projects" "$root/source/t"

# The tests' own packages first, so that those of the library are installed for its sake, and are removed with it.
tests=$(sed -n 's/^Tests: *//p' "$tree/debian/tests/control")
check 'the packages that the tests need' get install $(sed -n 's/^Depends: *//p' "$tree/debian/tests/control" | tr ',' '\n' | grep -v libevparallel | sort -u)
files >"$tmp/before"
check 'apt-get installs the packages, and what they depend on' get install $(cd "$root/packages" && printf '/packages/%s ' *.deb)
files >"$tmp/installed"
looked_at "$(comm -13 "$tmp/before" "$tmp/installed" | grep -c evparallel)" 'installed files'
# As autopkgtest does it: a test that writes to standard error has failed.
passes() {
	status=0
	in_root env AUTOPKGTEST_TMP="/tmp/$1" "/source/debian/tests/$1" 2>"$tmp/errors" || status=$?
	cat "$tmp/errors"
	test "$status" = 0 && test ! -s "$tmp/errors"
}
for test in $tests; do
	in_root mkdir "/tmp/$test"
	check "debian/tests/$test passes" passes "$test"
	rm -rf "$root/tmp/$test"
done
looked_at "$(echo "$tests" | wc -w)" tests
check 'apt-get removes the packages' get purge --autoremove $(cd "$root/packages" && ls | sed 's/_.*//')
files >"$tmp/after"
diff "$tmp/before" "$tmp/after" >"$tmp/left" || :
empty 'no file is left' "$tmp/left"

if test ! -s "$tmp/failed"; then
	rm -rf debs
	mkdir debs
	cp $debs debs
fi
finish
