package main

import (
	"fmt"
	"os"
	"slices"
	"sync"
	"time"
)

// row is one measurement on a link. What it does not have stays zero.
type row struct {
	link, what, who string
	took, floor     time.Duration
	up              float64  // took over floor, of the time that the link was up
	sent            [2]int64 // bytes into the link: from who puts, and towards it
	text            string
}

// ours is who is measured.
const ours = "redoubt"

// table gathers rows from measurements that run at the same time.
type table struct {
	mu   sync.Mutex
	rows []row
}

func (t *table) add(r row) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rows = append(t.rows, r)
	fmt.Fprintln(os.Stderr, r.line(t.find(r.link, initialLoad)))
}

// find gives our own row of a measurement, or none.
func (t *table) find(link, what string) row {
	for _, r := range t.rows {
		if r.link == link && r.what == what && r.who == ours {
			return r
		}
	}
	return row{}
}

// print gives all rows, by link and measurement.
func (t *table) print() {
	t.mu.Lock()
	defer t.mu.Unlock()
	order := []string{initialLoad, updateLoad, bulkLoad, flashLoad, killedLoad}
	slices.SortStableFunc(t.rows, func(a, b row) int {
		place := func(r row) string {
			i := slices.Index(order, r.what)
			if i < 0 {
				i = len(order)
			}
			return fmt.Sprint(r.link, i, r.what, r.who != ours, r.who)
		}
		switch x, y := place(a), place(b); {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0
	})
	fmt.Printf("%-4s %-34s %-13s %9s %8s %7s %9s %10s %10s\n", "link", "measurement", "", "s", "floor s", "ratio", "while up", "KiB up", "KiB back")
	for _, r := range t.rows {
		fmt.Println(r.line(t.find(r.link, initialLoad)))
	}
	fmt.Println("\nfloor: what full datagrams need for what zstd leaves of the content, losses and outages included, without any protocol. while up: the same of")
	fmt.Println("the time that the link was up. KiB up and back: all packets that were sent, in the direction of the content and against it.")
}

// line is one row; undisturbed is that of the same load without kills.
func (r row) line(undisturbed row) string {
	cell := func(width int, format string, has bool, v any) string {
		if !has {
			return fmt.Sprintf("%*s", width, "")
		}
		return fmt.Sprintf("%*s", width, fmt.Sprintf(format, v))
	}
	out := fmt.Sprintf("%-4s %-34s %-13s", r.link, r.what, r.who)
	out += cell(10, "%.2f", r.took > 0, r.took.Seconds()) + cell(9, "%.2f", r.floor > 0, r.floor.Seconds())
	out += cell(8, "%.2f", r.floor > 0 && r.took > 0, r.took.Seconds()/max(r.floor.Seconds(), 1e-9)) + cell(10, "%.2f", r.up > 0, r.up)
	out += cell(11, "%.1f", r.sent[0] > 0, float64(r.sent[0])/kib) + cell(11, "%.1f", r.sent[1] > 0, float64(r.sent[1])/kib)
	if r.what == killedLoad && r.took > 0 && undisturbed.sent[0] > 0 {
		all := func(x row) float64 { return float64(x.sent[0] + x.sent[1]) }
		out += fmt.Sprintf("  %+.1f %% bytes", 100*(all(r)/all(undisturbed)-1))
	}
	if r.text != "" {
		out += "  " + r.text
	}
	return out
}
