#!/bin/sh
# The library compiles for other processors without a warning, and programs of the suite pass there: under qemu-user, or,
# for i386, on this machine itself.  t/gates/cross.txt lists the programs, and the cases that are left out with the reasons.
# Takes minutes, and has a goal of its own, `make check-cross`:
#   CROSS='arm64 i386'   these processors only
#   SAMPLE=yes           only the sample of the list, compiled without optimisation
# The folder cross/ keeps a root for each processor, and the builds.  Packages are unpacked there and not installed, so
# that dpkg of this machine learns of no other processor.
. "${srcdir:-.}/t/lib/gate.sh"
kind=whole
test -z "${SAMPLE-}" || kind=sample

# processor NAME: sets the properties of a processor.  $machine is the one of qemu, empty for this machine.  $cc and $cxx
# are clang, which compiles this three times as fast as g++.  For i386 it does not know that 64 bits are written at once.
processor() {
	suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
	case $1 in
	arm64) target=aarch64-linux-gnu machine=aarch64 ;;
	riscv64) target=riscv64-linux-gnu machine=riscv64 suite=trixie ;; # Debian's first release for it
	i386) target=i686-linux-gnu machine= ;;
	*) echo "Bail out! CROSS has arm64, riscv64 and i386, and not $1"; exit 99 ;;
	esac
	cc="clang --target=$target" cxx="clang++ --target=$target" compiler=clang fast=yes
	if test "$1" = i386; then
		cc=$target-gcc cxx=$target-g++ compiler=g++-$target fast=
	fi
	place=$PWD/cross/$1
	root=$place/root
	libraries=$root/usr/lib/$(echo "$target" | sed s/i686/i386/)
	build=$place/$kind
}

# Not a part of `make deps`, as only this gate needs them.
: >"$tmp/missing"
for arch in $CROSS; do
	processor "$arch"
	command -v "${cxx%% *}" >/dev/null || echo "$compiler" >>"$tmp/missing"
	command -v "$target-ld" >/dev/null || echo "binutils-$target" >>"$tmp/missing"
	test -z "$machine" || command -v "qemu-$machine-static" >/dev/null || echo qemu-user-static >>"$tmp/missing"
done
if test -s "$tmp/missing"; then
	echo "Bail out! Please run: apt-get install" $(sort -u "$tmp/missing")
	exit 99
fi

# ---- the list: KIND PROGRAM CASES, or `without WHERE PROGRAM CASE REASON` ----

grep -v -e '^#' -e '^$' "$srcdir/t/gates/cross.txt" >"$tmp/list"
awk '$1 == "without" { print $3, $4 } $1 != "without" && $3 !~ /[*]/ { print $2, $3 }' "$tmp/list" | sort -u >"$tmp/named"
looked_at "$(wc -l <"$tmp/named")" 'cases that t/gates/cross.txt names'
awk 'FNR == NR { known[$0]; sub("/[^/]*$", ""); known[$0]; next } !($0 in known)' \
	"$srcdir/t/gates/cases.txt" "$tmp/named" >"$tmp/unknown"
empty 'they exist' "$tmp/unknown"

# programs_of KIND: each one once.
programs_of() { awk -v kind="$1" '$1 == kind && !seen[$2]++ { print $2 }' "$tmp/list"; }
# cases_of KIND PROGRAM: cases and suites, a line for each; nothing for all.
cases_of() { awk -v kind="$1" -v program="$2" '$1 == kind && $2 == program && $3 != "*" { print $3 }' "$tmp/list"; }
# left_out_of KIND PROGRAM WHERE...: "CASE REASON", a line for each of those that would run.
left_out_of() {
	awk -v kind="$1" -v program="$2" -v where=" $3 " '
	$1 == kind && $2 == program { runs[$3] }
	$1 == "without" && $3 == program && index(where, " " $2 " ") {
		suite = $4
		sub("/[^/]*$", "", suite)
		if (!("*" in runs) && !($4 in runs) && !(suite in runs)) next
		line = $4
		for (i = 5; i <= NF; i++) line = line " " $i
		print line
	}' "$tmp/list"
}

# ---- a root ----

# An apt of its own, with the sources, lists and state of this root.
fetch() {
	apt=$place/apt
	mkdir -p "$apt/lists/partial" "$apt/archives/partial" "$apt/parts"
	: >"$apt/status"
	echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${DEBIAN_MIRROR:-http://deb.debian.org/debian} $suite main" >"$apt/sources.list"
	cat >"$apt/conf" <<-END
		Dir::State "$apt";
		Dir::State::status "$apt/status";
		Dir::Cache "$apt";
		Dir::Etc::sourcelist "$apt/sources.list";
		Dir::Etc::sourceparts "$apt/parts";
		Dir::Etc::preferencesparts "$apt/parts";
		APT::Architecture "$1";
		APT::Architectures { "$1"; };
		APT::Install-Recommends "false";
		APT::Sandbox::User "";
	END
	APT_CONFIG=$apt/conf apt-get -q update &&
		APT_CONFIG=$apt/conf apt-get -q -y --download-only install libc6-dev libstdc++-12-dev libevent-dev nlohmann-json3-dev libboost-test-dev
}

unpack() {
	rm -rf "$root" "$root.tmp"
	mkdir -p "$root.tmp/usr/lib"
	ln -s usr/lib "$root.tmp/lib" # no package has this link
	for deb in "$place"/apt/archives/*.deb; do
		dpkg-deb --fsys-tarfile "$deb" | tar -C "$root.tmp" -xf - --keep-directory-symlink --exclude=./usr/share/doc --exclude=./usr/share/man || return
	done
	# Links that begin at the root of another machine begin at this one.
	find "$root.tmp" -type l -lname '/*' | while IFS= read -r link; do
		ln -sfn "$root$(readlink "$link")" "$link"
	done
	# With pages that are larger than those of the machine, qemu-user maps a file to its end and not to that of the page.
	test "$target" != aarch64-linux-gnu || find "$root.tmp" -type f -name '*.so*' -exec sh -c 'for file; do
		test "$(head -c 4 "$file" | tail -c 3)" != ELF || truncate -s +64K "$file"; done' - {} +
	mv "$root.tmp" "$root"
}

# ---- a build ----

# i386 programs run by themselves, so they name the loader of their root, and the folders of libraries for all that they load.
configure() (
	link=
	test -n "$machine" || link="-Wl,--dynamic-linker=$root/lib/ld-linux.so.2 -Wl,--disable-new-dtags -Wl,-rpath,$libraries"
	flags='-O2 -g1'
	test $kind = whole || flags='-O0 -g1'
	mkdir -p "$build"
	cd "$build"
	env -u CPPFLAGS -u LIBS PKG_CONFIG=pkg-config PKG_CONFIG_SYSROOT_DIR="$root" \
		PKG_CONFIG_LIBDIR="$libraries/pkgconfig:$root/usr/share/pkgconfig" \
		../../source/configure -q --host=$target --enable-maintainer-mode CC="$cc --sysroot=$root" CXX="$cxx --sysroot=$root" \
		CXXFLAGS="$flags" LDFLAGS="$link"
)

# Libraries that programs of the whole list preload.
preloaded=
test $kind = sample || preloaded='t/lib/allocator.la t/lib/jemalloc.la t/lib/tsan.la t/lib/tsan_thread.la t/lib/no_memfd.la'
# Without code in the precompiled headers: clang 14 crashes when it compiles that for arm64.
build() {
	env MAKEFLAGS= MAKELEVEL= "$MAKE" -C "$build" -j"$(nproc)" PRECOMPILED=$fast precompiling=-fpch-instantiate-templates \
		TEST_CXXFLAGS='-O0 -g1' all t/lib/failing $preloaded $({ programs_of $kind; programs_of pages; } | sort -u | sed 's|.*|t/&.t|')
}

# ---- the programs ----

# start NAME PROGRAM KIND 'WHERE...' OPTIONS_OF_QEMU...: queues a program.
start() {
	name=$1 program=$2
	cases_of "$3" "$2" >"$tmp/cases"
	left_out_of "$3" "$2" "$4" >"$tmp/left"
	shift 4
	scale=1
	if test -n "$machine"; then
		scale=10
		set -- "qemu-$machine-static" -L "$root" "$@"
	fi
	set -- "$@" "./t/$program.t"
	while read -r case; do set -- "$@" "--run_test=$case"; done <"$tmp/cases"
	while read -r case reason; do
		set -- "$@" "--run_test=!$case"
		printf '%s\t%s\n' "$name $program $case" "$reason" >>"$tmp/without"
	done <"$tmp/left"
	queue sh -c 'begun=$(date +%s); status=0; cd "$0" && ulimit -S -c 0 && timeout -k 5 1200 "$@" </dev/null || status=$?
		echo "# took $(($(date +%s) - begun)) seconds"; exit $status' "$build" env TEST_TIME_SCALE=$scale "$@"
	printf '%s\t%s\t%s\n' "$queued" "$name" "$program" >>"$tmp/started"
}

# One point for each case, and one for the program if it has not ended in order.
report() {
	said=$(said_by "$1")
	sed -n 's/^not ok [0-9]* - \([^ ]*\).*/\1/p' "$said" >"$tmp/bad"
	sed -n '/^ok /{s/^ok [0-9]* - //p;}' "$said" >"$tmp/good"
	while read -r case; do ok "$2 $3: $case"; done <"$tmp/good"
	while read -r case; do
		sed -n "/^# ---- failed/,\$p" "$said" | head -n 40 >"$tmp/why"
		not_ok "$2 $3: $case" "$tmp/why"
	done <"$tmp/bad"
	planned=$(sed -n 's/^1\.\.//p' "$said")
	if test "${planned:-0}" != "$(cat "$tmp/bad" "$tmp/good" | wc -l)" || { test "$(status_of "$1")" != 0 && test ! -s "$tmp/bad"; }; then
		tail -n 20 "$said" >"$tmp/why"
		not_ok "$2 $3 ends in order: status $(status_of "$1"), ${planned:-no} cases planned" "$tmp/why"
		echo unfinished >>"$tmp/bad"
	fi
	skipped=$(grep -c '# SKIP' "$tmp/good" || :)
	printf '%s\t%s\t%d\t%d\t%d\t%d\n' "$2" "$3" "$(($(wc -l <"$tmp/good") - skipped))" "$skipped" "$(wc -l <"$tmp/bad")" \
		"$(sed -n 's/^# took \(.*\) seconds/\1/p' "$said")" >>"$tmp/table"
}

# ---- all of it ----

mkdir -p cross
check 'the files of a release' env MAKEFLAGS= MAKELEVEL= "$MAKE" -s distdir distdir=cross/source
chmod -R u+w cross/source

: >"$tmp/without"
: >"$tmp/started"
for arch in $CROSS; do
	processor "$arch"
	if test ! -d "$root"; then
		check "$arch: apt-get gets the packages of $suite" fetch "$arch"
		check "$arch: they are unpacked" unpack
	fi
	test -f "$build/GNUmakefile" || check "$arch: ./configure" configure
	if build >"$tmp/said" 2>&1; then
		ok "$arch: the library and the programs compile without a warning"
	else
		grep -E 'error: |Error |undefined reference' "$tmp/said" >"$tmp/why" || cat "$tmp/said" >"$tmp/why"
		not_ok "$arch: the library and the programs compile without a warning" "$tmp/why"
		continue
	fi
	if test -z "$machine" && ! "$build/t/lib/failing" --names >"$tmp/said" 2>&1; then
		echo "$arch the machine runs no programs of this processor" >>"$tmp/refused"
		continue
	fi
	for program in $(programs_of $kind); do
		start "$arch" "$program" $kind "all ${machine:+qemu }$arch"
	done
	# A kernel with larger pages than any that these programs were tested with.
	test "$arch" != arm64 || for program in $(programs_of pages); do
		start "$arch/64K" "$program" pages "all qemu pages $arch" -p 65536
	done
done
run_queue

: >"$tmp/table"
while read -r job name program; do report "$job" "$name" "$program"; done <"$tmp/started"
looked_at "$(wc -l <"$tmp/table")" 'programs of other processors'
while IFS='	' read -r name reason; do ok "$name # SKIP $reason"; done <"$tmp/without"
if test -f "$tmp/refused"; then
	while read -r arch reason; do ok "the programs of $arch # SKIP $reason"; done <"$tmp/refused"
fi
finish

echo '#'
awk -F '\t' '
	FILENAME == ARGV[1] { split($1, word, " "); left[word[1] "\t" word[2]]++; next }
	function row(what, a, b, c, d, e) { printf "# %-32s %8s %8s %8s %8s %8s\n", what, a, b, c, d, e }
	FNR == 1 { row("processor and program", "passed", "skipped", "left out", "failed", "seconds") }
	{ out = left[$1 "\t" $2] + 0; row($1 " " $2, $3, $4, out, $5, $6); p += $3; s += $4; o += out; f += $5; t += $6 }
	END { row("all", p + 0, s + 0, o + 0, f + 0, t + 0) }' "$tmp/without" "$tmp/table"
echo '#'
{ cut -f 2 "$tmp/without" | sed 's/^/left out: /'; sed -n 's/^ok .* # SKIP /skipped: /p' "$tmp"/job.*.said; } | sort | uniq -c | sort -rn | sed 's/^/# /'
