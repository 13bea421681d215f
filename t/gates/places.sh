#!/bin/sh
# Which file may use a name, and which names are forbidden. Comments and texts do not count as use.
. "${srcdir:-.}/t/lib/gate.sh"
cd "$srcdir"

# One file without comments and without text between quotes; lines are kept. Includes keep their names.
code_of() {
	awk '
	/^ *# *include/ && !inside { print; next }
	{
		out = ""
		for (i = 1; i <= length($0); i++) {
			c = substr($0, i, 1); two = substr($0, i, 2)
			if (inside) { if (two == "*/") { inside = 0; i++; out = out " " } }
			else if (two == "/*") { inside = 1; i++ }
			else if (two == "//") break
			else if (c == "\"" || (c == "\047" && substr($0, i - 1, 1) !~ /[0-9a-fA-F]/)) {
				for (i++; i <= length($0) && substr($0, i, 1) != c; i++) if (substr($0, i, 1) == "\\") i++
				out = out c c
			}
			else out = out c
		}
		print out
	}' "$1"
}

find include src -name '*.[hc]pp' | sort >"$tmp/files"
looked_at "$(wc -l <"$tmp/files")" files

cat >"$tmp/sample.cpp" <<'SAMPLE'
// fork( in a comment
/* fork( in a
   longer fork( comment */ int a = 1'000; say("fork( in \" a text");
pid = ::fork(); // here
SAMPLE
code_of "$tmp/sample.cpp" >"$tmp/sample"
if test "$(grep -c fork "$tmp/sample")" = 1 && grep -q "1'000; say" "$tmp/sample"; then
	ok 'comments and strings are removed'
else
	not_ok 'comments and strings are removed' "$tmp/sample"
fi

while read -r file; do code_of "$file" | sed "s|^|$file:|"; done <"$tmp/files" >"$tmp/code"

# uses PATTERN: "file:line of code" of each use.
uses() {
	grep -E "^[^:]*:(.*[^A-Za-z0-9_.>])?($1)" "$tmp/code" || :
}

# only_in PATTERN FILES: no use in other files, and at least one in each of these: a rule without a use is obsolete.
only_in() {
	uses "$1" >"$tmp/uses"
	printf '%s\n' $2 >"$tmp/allowed"
	awk -F: 'NR == FNR { allowed[$1]; next } !($1 in allowed)' "$tmp/allowed" "$tmp/uses" >"$tmp/astray"
	if ! test -s "$tmp/uses"; then echo "nothing uses it" >"$tmp/astray"; fi
	empty "only in $2: $1" "$tmp/astray"
}

# nowhere_but PATTERN [FILES]: these files may use it, but need not.
nowhere_but() {
	uses "$1" >"$tmp/uses"
	printf '%s\n' ${2-} >"$tmp/allowed"
	awk -F: 'NR == FNR { allowed[$1]; next } !($1 in allowed)' "$tmp/allowed" "$tmp/uses" >"$tmp/astray"
	empty "nowhere${2:+ but in $2}: $1" "$tmp/astray"
}

only_in     '(fork|vfork|waitpid|wait4|waitid) *\(' 'src/system/fork.cpp'
only_in     'SYS_clone' 'src/system/fork.cpp'
nowhere_but '(::clone|clone3) *\('
only_in     '(sendmsg|recvmsg|sendmmsg|recvmmsg) *\(' 'src/system/socket.cpp'
nowhere_but '::(send|recv|sendto|recvfrom) *\(' 'src/system/socket.cpp'
only_in     'dl_iterate_phdr *\(' 'src/backtrace/loaded_modules.cpp'
nowhere_but '(dladdr|dlsym|dlopen) *\(' 'src/spawn/preflight.cpp src/backtrace/symbolizer.cpp src/backtrace/cxa_throw.cpp'
only_in     '# *include *<backtrace.h>' 'src/backtrace/symbolizer.cpp'
only_in     'sigaltstack *\(' 'src/backtrace/crash_record.cpp'
only_in     '# *include *<event2/' 'src/loop/event_loop.hpp src/loop/event_loop.cpp'
only_in     '# *include *<nlohmann/' 'include/evparallel/detail/json_document.hpp'
only_in     '_[eE]xit *\(' 'src/system/fork.cpp src/snapshot/server.cpp'
# A system call that a kernel may lack: t/gates/without-memfd.sh runs its users as on such a kernel.
only_in     'memfd_create *\(' 'src/system/new_descriptor.cpp'
# No descriptor of the library has the number of a standard stream: all are made in one place.
only_in     '(socketpair|pipe2|eventfd|signalfd|timerfd_create|inotify_init1?|epoll_create1?|openat|open64|creat) *\(' 'src/system/new_descriptor.cpp'
only_in     '::open *\(' 'src/system/new_descriptor.cpp'
only_in     'F_DUPFD(_CLOEXEC)?' 'src/system/new_descriptor.cpp'
nowhere_but '::(socket|accept4?|pipe|dup|mkstemp|mkostemp|tmpfile|shm_open|scandir) *\('
nowhere_but '(opendir|fopen|freopen|popen|SYS_open[a-z0-9]*|SYS_dup[23]?)([^a-z_]|$)'
nowhere_but 'std::[io]?fstream'
# Calls that replace a descriptor by another one.
only_in     '::dup[23] *\(' 'src/system/fork.cpp src/system/stdio_plan.cpp'
# If the kernel refuses to wait, the library must not spin.
only_in     '::poll *\(' 'src/system/polling.cpp'
nowhere_but '::(ppoll|select|pselect|epoll_wait|epoll_pwait|sigwait|sigwaitinfo) *\('
only_in     '::sigtimedwait *\(' 'src/system/flush_streams.cpp'   # takes a pending signal, and does not wait
nowhere_but '(close_range|pidfd_open|SYS_memfd_create|SYS_close_range)'
only_in     'SYS_pidfd_open' 'src/system/new_descriptor.cpp'
only_in     'SYS_pidfd_send_signal' 'src/system/fork.cpp'
nowhere_but '# *include *<(thread|regex)>'
nowhere_but '# *include *<iostream>' 'src/system/flush_streams.cpp'
# No call takes a lock: only posts, and the making and the end of children, loops and snapshots.
only_in     '# *include *<mutex>' 'src/loop/posted_queue.hpp src/system/process_lock.hpp src/spawn/rendezvous.hpp'

# ---- texts ---------------------------------------------------------------------------------------

find include src t man examples bench doc NEWS README.md CONTRIBUTING.md SECURITY.md VERSION Makefile GNUmakefile.am configure.ac \
	-path t/fuzz/corpus -prune -o -name '*.t' -o -name '*.o' -o -name '*.lo' -o -name '*.la' -o -name '*.log' -o -name '*.trs' \
	-o -path '*/.*' -o -type f -print | sort >"$tmp/texts"
looked_at "$(wc -l <"$tmp/texts")" texts
while read -r file; do
	grep -I -n "[^ -~$(printf '\t')]" "$file" /dev/null || :
done <"$tmp/texts" >"$tmp/foreign"
empty 'every file is ASCII' "$tmp/foreign"

while read -r file; do
	test "$file" = t/gates/places.sh || grep -I -n -F 'TODO(now)' "$file" /dev/null || :
done <"$tmp/texts" >"$tmp/now"
empty 'no file has a TODO(now)' "$tmp/now"

version=$(cat VERSION)
read -r first rest <NEWS || :
if test "$first" = "$version"; then ok "NEWS starts with $version"; else not_ok "NEWS starts with $first, VERSION is $version"; fi
finish
