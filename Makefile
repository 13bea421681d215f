# Bootstraps a fresh clone: makes ./configure and GNUmakefile, then passes every goal on. GNU make prefers GNUmakefile,
# so once configured this file is only used for `deps`.

# Goals run in the order of the command line, also with -j: `make -j2 deps check`. The build itself is parallel, on all
# CPUs unless the user gives a -j.
.NOTPARALLEL:
.SUFFIXES:
.DEFAULT_GOAL := all

# Packages for the library, its build, and the gates of `make check`.
packages = g++ make autoconf automake libtool pkg-config libevent-dev nlohmann-json3-dev \
           libboost-test-dev mandoc lowdown clang-format libpng-dev libasio-dev libglib2.0-dev libuv1-dev \
           cmake meson abigail-tools

# Two jobs for each CPU that this process may use, since tests wait more than they compute, but no more than one for each
# GB of memory: compiling a test takes up to 0.7 GB.
jobs := $(shell awk -v cpus="$$(nproc)" '/^MemTotal:/ { memory = int($$2 / 1048576 + 0.5) } \
  END { n = 2 * cpus; if (memory && memory < n) n = memory; print (n > 1 ? n : 1) }' /proc/meminfo)

# MAKEFLAGS contains a -j only inside recipes.
parallel = $(if $(findstring -j,$(MAKEFLAGS)),,-j$(jobs) --output-sync=target --no-print-directory)

# The first goal prints one line while it configures. V=1 shows all, as other goals do.
quiet =
told =
demo: parallel += --no-print-directory
demo: quiet = $(if $(filter-out 0,$(V)),,@$(if $(told),,$(eval told := yes)$(info configuring (log in config.log))))

.PHONY: all deps jobs clean distclean maintainer-clean uninstall

# GNUmakefile is a prerequisite and never an included file: make remakes included files before any goal runs, and so
# before `deps` could install autoconf.
all: GNUmakefile
	+@$(MAKE) $(parallel) -f GNUmakefile all

%: GNUmakefile
	+@$(MAKE) $(parallel) -f GNUmakefile $@

# configure -q still prints errors; the end of its log would be a list of variables.
GNUmakefile: configure
	$(quiet)./configure$(if $(quiet), -q)

configure: configure.ac GNUmakefile.am VERSION | $(filter deps,$(MAKECMDGOALS))
	@command -v autoreconf >/dev/null && command -v libtoolize >/dev/null && \
	  command -v pkg-config >/dev/null || \
	  { echo 'autoreconf, libtoolize or pkg-config is missing: run "make deps" first' >&2; exit 1; }
	$(quiet)mkdir -p m4
	$(quiet)autoreconf -i$(if $(quiet), >config.log 2>&1 || { tail -n 20 config.log >&2; exit 1; })

deps:
	@command -v dpkg-query >/dev/null && command -v apt-get >/dev/null || \
	  { echo 'deps: knows apt-get alone; please install: $(packages)' >&2; exit 1; }; \
	missing=; for p in $(packages); do \
	  dpkg-query -W -f '$${Status}\n' $$p 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$p"; \
	done; \
	if test -z "$$missing"; then echo 'deps: nothing to install'; exit 0; fi; \
	root=; test "$$(id -u)" = 0 || root=sudo; \
	test -z "$$root" || command -v sudo >/dev/null || \
	  { echo "deps: neither root nor sudo; please run: apt-get install$$missing" >&2; exit 1; }; \
	echo "deps: $$root apt-get install$$missing"; \
	$$root apt-get update && \
	$$root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $$missing

# For the configured tree, which does not use this file.
jobs:
	@echo $(jobs)

# Nothing has been built: a tree need not be configured for a clean.
clean distclean maintainer-clean:
	@echo '$@: not configured, nothing to do'

uninstall:
	@echo 'uninstall: not configured; run ./configure with the prefix of the install first' >&2; exit 2

# Without rules of their own the match-anything rule above would try to remake these.
Makefile configure.ac GNUmakefile.am VERSION: ;
