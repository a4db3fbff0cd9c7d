package enclave

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"redoubt"
	"redoubt/label"
)

// What a raise, or the giving to a partner, passed over, for it did not read or is larger than any bundle, is known of by the lower end until it was raised after all, or all is raised anew.

// leftOut notes what was left out of the bundle that is made. What is left out of two, since the first came to nothing or was given again, counts once.
func (r *handoverRecord) leftOut(unread map[string][]redoubt.Stamp) {
	known := 0
	for _, all := range r.Unread {
		known += len(all)
	}
	for _, set := range slices.Sorted(maps.Keys(unread)) {
		for _, s := range unread[set] {
			switch {
			case slices.Contains(r.Unread[set], s):
			case known == redoubt.MaxRaiseUnread:
				r.Beyond++ // which of them these are is not known: one that is left out of two bundles counts twice
			default:
				if r.Unread == nil {
					r.Unread = map[string][]redoubt.Stamp{}
				}
				r.Unread[set] = append(r.Unread[set], s)
				known++
			}
		}
	}
}

// wentUp forgets what the guard has in a bundle by now.
func (r *handoverRecord) wentUp(held map[string][]redoubt.Stamp) {
	for set, all := range held {
		if r.Unread[set] = slices.DeleteFunc(r.Unread[set], func(s redoubt.Stamp) bool { return slices.Contains(all, s) }); len(r.Unread[set]) == 0 {
			delete(r.Unread, set)
		}
	}
}

// readAfterAll forgets what was left out earlier and is in the bundle that the record is about, which the guard has.
func (e *Enclave) readAfterAll(peer redoubt.NodeName, rec *handoverRecord) error {
	if len(rec.Unread) == 0 {
		return nil
	}
	raw, ok, err := e.engine.Get(heldKey(peer, rec.Mark.Serial))
	if err != nil || !ok {
		return err
	}
	_, made, err := decodeHeld(raw)
	if err == nil {
		rec.wentUp(made.Held)
	}
	return err
}

// LeftOut gives what was passed over; see redoubt.RaiseLedger.
func (e *Enclave) LeftOut(_ context.Context, peer redoubt.NodeName) (map[string][]redoubt.Stamp, error) {
	var rec handoverRecord
	_, err := e.bundleRecord(handoverKey(peer), &rec)
	return rec.Unread, err
}

// unread counts what was left out of what is handed to a peer and is still there.
func (e *Enclave) unread(l redoubt.Link) (n int, err error) {
	var rec handoverRecord
	if _, err := e.bundleRecord(handoverKey(l.Peer), &rec); err != nil || len(rec.Unread) == 0 {
		return rec.Beyond, err
	}
	view := e.engine.View()
	defer view.Close()
	table := e.sets.table.Load()
	for text, stamps := range rec.Unread {
		of, err := label.ParseText([]byte(text), e.policy)
		if err != nil {
			return 0, err
		}
		set := table.byLabel[of]
		if set == nil {
			continue
		}
		for _, s := range stamps {
			_, there, err := e.ref(view, l, set, versionID(s))
			if there || redoubt.KindOf(err) == redoubt.Corrupt {
				n++
			} else if err != nil {
				return 0, err
			}
		}
	}
	return n + rec.Beyond, nil
}

// shownUnread is how many are named where it is recorded that they were left out: as Check names them.
const shownUnread = 16

// withoutText tells the audit log what was left out of a bundle; "": nothing.
func (e *Enclave) withoutText(unread map[string][]redoubt.Stamp) string {
	var names []string
	n := 0
	for _, set := range slices.Sorted(maps.Keys(unread)) {
		for _, s := range unread[set] {
			if n++; n <= shownUnread {
				names = append(names, e.ids.token(versionID(s)))
			}
		}
	}
	if n == 0 {
		return ""
	}
	more := ""
	if n > shownUnread {
		more = " …"
	}
	return fmt.Sprintf(", without %d that do not read or are larger than a bundle: %s%s", n, strings.Join(names, " "), more)
}
