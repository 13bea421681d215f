#!/bin/sh
# No target of t/fuzz fails: neither with its seeds nor with what libFuzzer makes of them.  Takes as long as one says, and
# has a goal of its own, `make fuzz`:
#   FUZZ_SECONDS   of processor time, for all targets together; 0: the seeds only
#   FUZZ_SEED      of the random numbers; 0: others each time
# The folder fuzz/ keeps the inputs that reached something new, in fuzz/corpus/, and those that failed, in fuzz/finds/.
. "${srcdir:-.}/t/lib/gate.sh"
corpus=$srcdir/t/fuzz/corpus
seed=${FUZZ_SEED:-1}

# ---- the seeds ----

# A seed that somebody has added by hand is no output of the program.
check 'the seeds can be written' fuzz/seeds "$tmp/seeds"
(cd "$tmp/seeds" && find . -type f) | while read -r file; do
	cmp "$tmp/seeds/$file" "$corpus/$file" 2>&1 || :
done >"$tmp/differ"
empty 'the seeds are what the library encodes (make fuzz-seeds)' "$tmp/differ"
for target in $fuzz_targets; do
	test -n "$(ls "$corpus/${target##*/}" 2>/dev/null)" || echo "$target has no seeds"
done >"$tmp/lacking"
for folder in "$corpus"/*; do
	case " $fuzz_targets " in *" t/fuzz/${folder##*/} "*) ;; *) echo "$folder belongs to no target" ;; esac
done >>"$tmp/lacking"
empty 'each target has seeds, and each seed a target' "$tmp/lacking"

# ---- the targets ----

# play TARGET ARGUMENT...: queues it.  A report has names and lines; of what is freed little is kept, since that adds up.
play() {
	target=$1
	shift
	queue env "ASAN_OPTIONS=quarantine_size_mb=16:$asan_options" "fuzz/$target" -timeout=60 -rss_limit_mb=1500 \
		-print_final_stats=1 -artifact_prefix="fuzz/finds/$target-" "$@"
}
asan_options=${ASAN_OPTIONS-}
mkdir -p fuzz/finds
count=$(echo "$targets" | wc -w)
looked_at "$count" targets

for target in $targets; do play "$target" -runs=0 "$corpus/$target"; done
run_queue
job=0
for target in $targets; do
	job=$((job + 1))
	tail -n 40 "$(said_by $job)" >"$tmp/why"
	if test "$(status_of $job)" = 0; then ok "$target: its seeds"; else not_ok "$target: its seeds" "$tmp/why"; fi
done

share=$((FUZZ_SECONDS / count))
if test "$FUZZ_SECONDS" -gt 0 && test "$share" = 0; then share=1; fi
if test "$share" -gt 0; then
	for target in $targets; do
		mkdir -p "fuzz/corpus/$target"
		play "$target" -seed="$seed" -max_total_time="$share" -max_len=1000 -len_control=20 "fuzz/corpus/$target" "$corpus/$target"
	done
	run_queue
fi
: >"$tmp/table"
for target in $targets; do
	test "$share" -gt 0 || continue
	job=$((job + 1))
	said=$(said_by $job)
	sed -n -e '/ERROR: \|REQUIRE(\|runtime error: /,$p' "$said" | grep -v '^#[0-9]' | head -n 60 >"$tmp/why"
	runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$said")
	name="$target: ${runs:-no} runs"
	if test "$(status_of $job)" = 0 && test "${runs:-0}" -gt 0; then ok "$name"; else not_ok "$name" "$tmp/why"; fi
	printf '%s\t%s\t%s\t%s\t%s\n' "$target" "${runs:-0}" \
		"$(sed -n 's/^#.* cov: \([0-9]*\) .*/\1/p' "$said" | tail -n 1)" \
		"$(sed -n 's/^stat::new_units_added: *//p' "$said")" "$(find fuzz/finds -name "$target-*" | wc -l)" >>"$tmp/table"
done
find fuzz/finds -type f | sort >"$tmp/finds"
finish

echo '#'
awk -F '\t' 'function row(what, a, b, c, d) { printf "# %-16s %12s %12s %12s %8s\n", what, a, b, c, d }
	NR == 1 { row("target", "runs", "coverage", "new inputs", "finds") } { row($1, $2, $3, $4, $5) }' "$tmp/table"
sed 's|^fuzz/finds/\([a-z_]*\)-.*|# again: fuzz/\1 &|' "$tmp/finds"
