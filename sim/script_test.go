package sim_test

import "time"

// scripts are histories that chance would draw too seldom: each is what one rule is for.
var scripts = map[string]struct {
	devices int
	steps   []step
}{
	// Both sides alter a version, one after the other: a tag of its device, a hold of the home, another tag of the device.
	"sides": {5, []step{
		{what: "put", node: 5, subject: "s-analyst", key: "b/only", size: 10, pick: 1},
		{what: "meet", node: 5}, {what: "settle"},
		{what: "tag", node: 5, subject: "s-analyst", key: "b/only", pick: 1}, {what: "settle"}, {what: "wait", span: time.Second},
		{what: "hold", subject: "s-analyst", key: "b/only", pick: 4}, {what: "settle"}, {what: "wait", span: time.Second},
		{what: "tag", node: 5, subject: "s-analyst", key: "b/only", pick: 2}, {what: "settle"},
	}},
	// A device keeps a version for good, and its home, which has not heard, gives it a tag later.
	"firm": {5, []step{
		{what: "put", node: 5, subject: "s-analyst", key: "b/only", size: 10, pick: 1},
		{what: "meet", node: 5}, {what: "settle"}, {what: "part", node: 5},
		{what: "retain", node: 5, subject: "s-analyst", key: "b/only", pick: inCompliance}, {what: "wait", span: time.Second},
		{what: "tag", subject: "s-analyst", key: "b/only", pick: 1},
	}},
	// A version is retained for two days, and when that is over its home and its device alter it: what is over stands no longer.
	"over": {5, []step{
		{what: "put", node: 5, subject: "s-analyst", key: "b/only", size: 10, pick: 1},
		{what: "meet", node: 5}, {what: "settle"},
		{what: "retain", node: 5, subject: "s-analyst", key: "b/only", pick: 1}, {what: "settle"},
		{what: "years", span: 60 * 24 * time.Hour}, {what: "meet", node: 5}, {what: "settle"},
		{what: "tag", subject: "s-analyst", key: "b/only", pick: 1}, {what: "settle"}, {what: "wait", span: time.Second},
		{what: "tag", node: 5, subject: "s-analyst", key: "b/only", pick: 2}, {what: "settle"},
	}},
	// A conflict is settled by a version of its own, which supersedes what was apart for a device that is sent the latest alone.
	"resolve": {5, []step{
		{what: "meet", node: 5}, {what: "settle"}, {what: "part", node: 5},
		{what: "put", node: 5, subject: "s-analyst", key: "b/only", size: 10, pick: 1}, {what: "wait", span: time.Second},
		{what: "put", subject: "s-analyst", key: "b/only", size: 10, pick: 1},
		{what: "meet", node: 5}, {what: "settle"},
		{what: "resolve", node: 5, subject: "s-analyst", pick: 1}, {what: "settle"},
	}},
	// The same, and what is kept is a marker.
	"resolve-marker": {5, []step{
		{what: "meet", node: 5}, {what: "settle"}, {what: "part", node: 5},
		{what: "put", node: 5, subject: "s-analyst", key: "b/only", size: 10, pick: 1},
		{what: "delete", node: 5, subject: "s-analyst", key: "b/only", pick: 1}, {what: "wait", span: time.Second},
		{what: "put", subject: "s-analyst", key: "b/only", size: 10, pick: 1},
		{what: "meet", node: 5}, {what: "settle"},
		{what: "resolve", node: 5, subject: "s-analyst", pick: 1}, {what: "settle"},
	}},
	// What goes from a device alone its home gives another tag, which the device is not told.
	"one-way": {5, []step{
		{what: "put", node: 3, subject: "u-analyst", key: "b/only", size: 10, pick: inImagery},
		{what: "meet", node: 3}, {what: "settle"},
		{what: "tag", node: 3, subject: "u-analyst", key: "b/only", pick: inImagery}, {what: "settle"}, {what: "wait", span: time.Second},
		{what: "tag", subject: "u-analyst", key: "b/only", pick: 1}, {what: "settle"},
	}},
	// Such a version is removed at both: of two removals the older stands, and that is the home's.
	"one-way-gone": {5, []step{
		{what: "put", node: 3, subject: "u-analyst", key: "b/only", size: 10, pick: inImagery},
		{what: "meet", node: 3}, {what: "settle"}, {what: "part", node: 3},
		{what: "remove", subject: "u-analyst", key: "b/only", pick: 4 * inImagery}, {what: "wait", span: time.Second},
		{what: "remove", node: 3, subject: "u-analyst", key: "b/only", pick: inImagery}, {what: "meet", node: 3}, {what: "settle"},
	}},
	// A device removes what it wrote and a neighbour took, and is revoked before its home has heard of either: the neighbour keeps the mark,
	// which the home refuses.
	"unheard": {5, []step{
		{what: "meet", node: 3}, {what: "meet", node: 4}, {what: "settle"}, {what: "part", node: 3}, {what: "part", node: 4},
		{what: "put", node: 3, subject: "u-analyst", key: "a/only", size: 10, pick: 1},
		{what: "meet", node: 3, peer: 4, pick: toDevice4}, {what: "settle"},
		{what: "remove", node: 3, subject: "u-analyst", key: "a/only", pick: 1}, {what: "settle"}, {what: "part", node: 3},
		{what: "revoke", node: 3},
	}},
	// What the home has for a device is more than its budget for a day.
	"budget": {5, []step{
		{what: "meet", node: 3}, {what: "settle"},
		{what: "put", subject: "u-analyst", key: "a/k0", size: 300_000, pick: 4}, {what: "settle"},
		{what: "put", subject: "u-analyst", key: "a/k1", size: 300_000, pick: 4}, {what: "settle"},
	}},
	// A device and its home part within a large version, of which the home keeps what has come. Another device, below it, meets the home then.
	"kept": {5, []step{
		{what: "meet", node: 3}, {what: "meet", node: 5}, {what: "settle"}, {what: "part", node: 3}, {what: "part", node: 5},
		{what: "large", node: 5, subject: "s-analyst", key: "b/only", size: 16 << 20, pick: 1},
		{what: "meet", node: 5, pace: 1 << 20}, {what: "wait", span: 12 * time.Second}, {what: "part", node: 5},
		{what: "meet", node: 3}, {what: "settle"},
	}},
	// Somebody else has a device, and tells its neighbour of the same range that people were revoked.
	"word": {5, []step{
		{what: "meet", node: 4}, {what: "meet", node: 5}, {what: "settle"},
		{what: "capture", node: 4}, {what: "forge", node: 4, pick: 1<<8 + 1},
	}},
	// A version goes from one device to its neighbour, is removed where it was made, and the home hears of that; the neighbour, away for
	// years, does not. When the two compare, the removal must still be known.
	"marks": {5, []step{
		{what: "meet", node: 4}, {what: "meet", node: 5}, {what: "settle"},
		{what: "put", node: 5, subject: "s-analyst", key: "b/only", size: 10, pick: 1},
		{what: "meet", node: 5, peer: 4, pick: toDevice4}, {what: "settle"}, {what: "part", node: 5}, {what: "part", node: 4},
		{what: "off", node: 4, pick: 1},
		{what: "remove", node: 5, subject: "s-analyst", key: "b/only", pick: 1},
		{what: "meet", node: 5}, {what: "settle"}, {what: "part", node: 5}, {what: "trim", node: 5},
		{what: "years", span: year}, {what: "years", span: year}, {what: "years", span: year},
		{what: "on", node: 5}, {what: "trim", node: 5}, {what: "on"}, {what: "meet", node: 5}, {what: "settle"}, // for its lease
		{what: "part", node: 5}, {what: "on", node: 4}, {what: "forget", node: 4, peer: 5},
		{what: "meet", node: 5, peer: 4, pick: toDevice4}, {what: "settle"},
	}},
}

const (
	year      = 365 * 24 * time.Hour
	toDevice4 = 1 // of those that devices 3 and 5 meet without the home

	inCompliance = 2 << 4 // by pick, retention of that mode
	inImagery    = 7      // and this bucket
)
