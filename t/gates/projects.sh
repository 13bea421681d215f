#!/bin/sh
# Small projects of CMake, Meson and make find the installed library, build a program with it, and run it. The tree is
# installed under another prefix than that of ./configure, and moved afterwards.
. "${srcdir:-.}/t/lib/gate.sh"
tool "${PKG_CONFIG%% *}"

skip() {
	points=$((points + 1))
	echo "ok $points - $1 # SKIP $2"
}
unset MAKEFLAGS MAKELEVEL # no client of the jobserver
quiet_make() { "$MAKE" -s -j1 "$@"; }

# Folders that ./configure was given without the prefix do not follow it, and must not be written to.
here=$tmp/installed
quiet_make prefix="$here" --eval='places: ; @printf "%s\n" $(libdir) $(includedir) $(mandir) $(pkgconfigdir) $(cmakedir)' places >"$tmp/places"
if grep -v "^$here/" "$tmp/places"; then
	echo '1..0 # SKIP ./configure was given folders without the prefix'
	exit
fi
libdir=$(sed -n 1p "$tmp/places")
pkgconfigdir=$(sed -n 4p "$tmp/places")
cmakedir=$(sed -n 5p "$tmp/places")

check 'make install prefix=DIR' quiet_make install prefix="$here"
unset LD_LIBRARY_PATH
PKG_CONFIG_PATH=$pkgconfigdir
export PKG_CONFIG_PATH
for module in evparallel evparallel-throw; do
	if test "$($PKG_CONFIG --variable=prefix $module)" = "$here"; then ok "$module.pc has this prefix"; else not_ok "$module.pc has another prefix" "$pkgconfigdir/$module.pc"; fi
done
grep -rlF -e "$here" -e '@' "$cmakedir" >"$tmp/absolute" || :
empty 'the files of CMake name no folder by an absolute path' "$tmp/absolute"

# The compiler of this build, and its modes: a sanitizer has to be linked into programs, too.
CXXFLAGS="-O0 $audit"
CXX=${CXX%% -std=*} # Meson asks clang++ for the macros of C, too
export CXX CXXFLAGS LDFLAGS PKG_CONFIG
project() {
	mkdir "$tmp/$2"
	cp "$srcdir/t/projects/$1"/* "$srcdir/examples/hello.cpp" "$tmp/$2"
	chmod u+w "$tmp/$2"/* # a source tree may be read-only
}
# hello_of TEXT PROGRAM: it runs, and has done what the library is for.
hello_of() {
	runs "$1" "$2"
	if grep -q '^hello, world, from process' "$tmp/said"; then ok 'and is answered'; else not_ok 'and is not answered' "$tmp/said"; fi
}

project make make
check 'make: the project builds' env LDFLAGS="$LDFLAGS -Wl,-rpath,$libdir" sh -c 'cd "$1" && "$2" hello' - "$tmp/make" "$MAKE"
hello_of 'make: hello runs' "$tmp/make/hello"

if command -v meson >/dev/null && command -v ninja >/dev/null; then
	project meson meson
	check 'Meson: the project is configured' meson setup "$tmp/meson/build" "$tmp/meson"
	check 'Meson: it builds' ninja -C "$tmp/meson/build"
	hello_of 'Meson: hello runs' "$tmp/meson/build/hello"
else
	skip 'Meson' 'no meson: make deps installs it'
fi

# with_cmake TEXT NAME: configures and builds the project below $tmp/NAME, with the tree at $tree.
with_cmake() {
	check "$1: the project is configured" cmake -S "$tmp/$2" -B "$tmp/$2/build" -DCMAKE_PREFIX_PATH="$tree" -DCMAKE_FIND_USE_PACKAGE_REGISTRY=OFF
	check "$1: it builds" cmake --build "$tmp/$2/build"
	hello_of "$1: hello runs" "$tmp/$2/build/hello"
}
if command -v cmake >/dev/null; then
	tree=$here
	project cmake cmake
	with_cmake 'CMake' cmake

	# The other targets, in another place, where nothing of the first is left. One object for all programs.
	tree=$tmp/elsewhere/moved
	mkdir "$tmp/elsewhere"
	mv "$here" "$tree"
	project cmake moved
	cat >>"$tmp/moved/CMakeLists.txt" <<-'END'
		find_package(evparallel CONFIG REQUIRED)
		foreach(other static throw)
		  if(TARGET evparallel::${other})
		    add_executable(hello_${other} $<TARGET_OBJECTS:hello>)
		    target_link_libraries(hello_${other} evparallel::${other})
		  endif()
		endforeach()
	END
	with_cmake 'CMake, moved' moved
	for other in static throw; do
		file=$(find "$tree" -name libevparallel.a)
		test "$other" = static || file=$(find "$tree" -name libevparallel-throw.so)
		test -n "$file" || continue
		hello_of "CMake, moved: hello with evparallel::$other runs" "$tmp/moved/build/hello_$other"
	done
	for word in "$here" "$(cd "$srcdir" && pwd)/include"; do grep -rlF -e "$word" "$tmp/moved/build/CMakeCache.txt" "$tmp/moved/build/CMakeFiles/hello.dir" || :; done >"$tmp/stale"
	empty 'CMake, moved: the build uses neither the first place nor the source tree' "$tmp/stale"

	# The version file alone decides on a request; the other file is not needed for this.
	version=$(cat "$srcdir/VERSION")
	major=${version%%.*}
	minor=${version#*.}
	minor=${minor%%.*}
	patch=${version##*.}
	lower=$major.$((minor - 1))
	test "$minor" -gt 0 || lower=$((major - 1)).9
	mkdir "$tmp/asked"
	: >"$tmp/asked/evparallel-config.cmake"
	cp "$(find "$tree" -name evparallel-config-version.cmake)" "$tmp/asked"
	cat >"$tmp/asked.cmake" <<-'END'
		foreach(request ${found} - ${refused})
		  if(request STREQUAL -)
		    set(other TRUE)
		    continue()
		  endif()
		  set(evparallel_DIR "${folder}")
		  string(REPLACE "/" ";" words "${request}")
		  find_package(evparallel ${words} CONFIG QUIET NO_DEFAULT_PATH)
		  if(evparallel_FOUND AND other)
		    message("${request} is found")
		  elseif(NOT evparallel_FOUND AND NOT other)
		    message("${request} is refused")
		  endif()
		endforeach()
	END
	found="$major.$minor;$version;$version/EXACT;$major.$minor...$major.$((minor + 1));$major.$minor...<$((major + 1))"
	refused="$lower;$major.$((minor + 1));$((major + 1));$major.$minor.$((patch + 1));$major.$minor.$((patch + 1))/EXACT;$major.$((minor + 1))...$((major + 1));$major.0.0...<$version"
	wrong() { cmake -D folder="$tmp/asked" -D found="$found" -D refused="$refused" "$@" -P "$tmp/asked.cmake" >"$tmp/wrong" 2>&1 || echo 'cmake failed' >>"$tmp/wrong"; }
	wrong
	empty 'CMake: only requests for this minor version are satisfied' "$tmp/wrong"
	refused="$found;$refused"
	found=
	wrong -D CMAKE_SIZEOF_VOID_P=2
	empty 'CMake: a program for another size of pointers does not find it' "$tmp/wrong"
else
	skip 'CMake' 'no cmake: make deps installs it'
fi
finish
