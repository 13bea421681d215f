# report.awk - writes the rows and points of the programs to results.json and to pictures in the folder `folder`, and a
# list of the rows that miss their bar.

function escaped(text) {
	gsub(/\\/, "\\\\", text)
	gsub(/"/, "\\\"", text)
	return text
}

BEGIN {
	FS = "\t"
	json = folder "/results.json"
	printf "{\n  \"machine\": \"%s\",\n  \"rows\": [", escaped(machine) >json
}

$1 == "row" {
	printf "%s\n    {\"question\": \"%s\", \"where\": \"%s\", \"ours\": \"%s\", \"beside\": \"%s\", \"figure\": %s, \"bar\": \"%s\", \"reached\": \"%s\"}", \
		(rows++ ? "," : ""), escaped($2), $3, $4, escaped($5), $6, $7, $8 >json
	if ($8 == "NO") missed[++misses] = $2 ", " $3 ": " $6 ", where " $7 " is the bar"
	next
}

$1 == "point" {
	picture = $2
	if (!(picture in points)) pictures[++picture_count] = picture
	n = ++points[picture]
	x[picture, n] = $3 + 0
	y[picture, n] = $4 + 0
	whose[picture, n] = $5
	next
}

# Positions in a picture of 640 x 400 with 60 at each side, both axes logarithmic (0 as half of the least x).
function place(value, least, most, from, to) {
	if (most == least) return (from + to) / 2
	return from + (log(value) - log(least)) / (log(most) - log(least)) * (to - from)
}

function draw(picture, title, x_text, y_text,    file, i, n, lx, mx, ly, my, px, py, series, count, colour, last) {
	file = folder "/" picture ".svg"
	n = points[picture]
	lx = ly = 1e300
	mx = my = 0
	for (i = 1; i <= n; i++) {
		if (x[picture, i] > 0 && x[picture, i] < lx) lx = x[picture, i]
		if (x[picture, i] > mx) mx = x[picture, i]
		if (y[picture, i] < ly) ly = y[picture, i]
		if (y[picture, i] > my) my = y[picture, i]
	}
	lx /= 2
	print "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"640\" height=\"400\" font-family=\"sans-serif\" font-size=\"12\">" >file
	print "<rect width=\"640\" height=\"400\" fill=\"white\"/>" >file
	printf "<text x=\"320\" y=\"24\" text-anchor=\"middle\" font-size=\"14\">%s</text>\n", title >file
	printf "<text x=\"320\" y=\"390\" text-anchor=\"middle\">%s</text>\n", x_text >file
	printf "<text x=\"16\" y=\"200\" text-anchor=\"middle\" transform=\"rotate(-90 16 200)\">%s</text>\n", y_text >file
	print "<path d=\"M60 40V350H600\" fill=\"none\" stroke=\"black\"/>" >file
	count = 0
	for (i = 1; i <= n; i++) {
		series = whose[picture, i]
		if (!((picture, series) in number)) number[picture, series] = ++count
		colour = substr("#1f77b4#d62728#2ca02c#9467bd", 7 * (number[picture, series] - 1) + 1, 7)
		px = place(x[picture, i] > 0 ? x[picture, i] : lx, lx, mx, 80, 580)
		py = place(y[picture, i], ly, my, 340, 60)
		if ((picture, series) in last) printf "<path d=\"M%sL%.1f %.1f\" fill=\"none\" stroke=\"%s\"/>\n", last[picture, series], px, py, colour >file
		else printf "<text x=\"540\" y=\"%d\" fill=\"%s\">%s</text>\n", 40 + 16 * number[picture, series], colour, series >file
		last[picture, series] = sprintf("%.1f %.1f", px, py)
		printf "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\" fill=\"%s\"/>\n", px, py, colour >file
		printf "<text x=\"%.1f\" y=\"%.1f\" font-size=\"9\">%g</text>\n", px + 4, py - 4, y[picture, i] >file
		if (number[picture, series] == 1) printf "<text x=\"%.1f\" y=\"364\" font-size=\"9\" text-anchor=\"middle\">%g</text>\n", px, x[picture, i] >file
	}
	print "</svg>" >file
	close(file)
}

END {
	print "\n  ]\n}" >json
	close(json)
	for (i = 1; i <= picture_count; i++) {
		if (pictures[i] == "spawn-heap") draw(pictures[i], "Spawn and first answer", "GB of heap in the parent", "microseconds")
		else if (pictures[i] == "rate-size") draw(pictures[i], "Calls a second, 64 in flight, one CPU", "bytes a message", "calls a second")
		else draw(pictures[i], pictures[i], "", "")
	}
	if (misses) {
		print ""
		print misses " of " rows " rows do not reach their bar:"
		for (i = 1; i <= misses; i++) print "  " missed[i]
	}
}
