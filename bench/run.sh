#!/bin/sh
# run.sh FOLDER PROGRAMS...: runs them one after the other and prints their rows at once, as a table; then report.awk
# makes results.json and the pictures from them, in FOLDER. It fails if a program fails: the rows of the others are
# shown.
set -eu
folder=$1
shift
rows=$folder/rows.tmp
trap 'rm -f "$rows"' EXIT
tab=$(printf '\t')
shape='%-58s %-9s %12s  %-38s %8s  %-8s %s\n'

measure() {
	for program; do
		case $program in
			*.sh) $SHELL "$srcdir/$program" || printf 'failed\t%s\n' "$program" ;;
			*) "./$program" || printf 'failed\t%s\n' "$program" ;;
		esac
	done
}

printf "$shape" question where ours beside figure bar reached
measure "$@" </dev/null | while IFS= read -r line; do
	printf '%s\n' "$line"
	case $line in
		row*) (IFS=$tab; set -f; set -- $line; shift; printf "$shape" "$@") >&2 ;;
		failed*) printf '%s\n' "$line" >&2 ;;
	esac
done 2>&1 >"$rows"
$AWK -v folder="$folder" -v machine="$(uname -srm), $(nproc) CPUs" -f "$srcdir/bench/report.awk" "$rows"
! grep -q '^failed' "$rows"
