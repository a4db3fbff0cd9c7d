/* The raise of docs/spec/guard.md, as it stands in enclave/handover.go, replica/raise.go, guard/feed.go and guard/take.go, for SPIN.
 * docs/model/README.md says what is left out and what was proved. `make model` checks it.
 *
 * Variables of the low side begin with l_, those of the high side with h_. Nothing under LOW names an h_, nothing under ROAD or HIGH an l_:
 * scripts/model looks at the text for that.
 *
 * Four entries: 0 puts X, 1 removes X, 2 puts Y, 3 closes (it is written once the faults are over). Bundles are numbers from 1;
 * a set of entries or of numbers is a byte of bits. A bundle is written once, so where it lies is one bit.
 */

#ifndef ABORTS		/* of a call by which a bundle is handed over: the low half, the low enclave or what joins them dies */
#define ABORTS 2
#endif
#ifndef LOSSES		/* of a whole bundle on the road: more datagrams than the parity makes good */
#define LOSSES 2
#endif
#ifndef CRASHES		/* of the high half or the high enclave, or a disk there that is full for a while */
#define CRASHES 1
#endif
#ifndef REFEEDS		/* by a person, of any number, at any time, beside the one at the end */
#define REFEEDS 1
#endif
#ifndef ANEWS		/* likewise: everything raised anew */
#define ANEWS 0
#endif
#ifndef DISKS		/* times that the low half's disk is lost */
#define DISKS 0
#endif
#ifndef SPLITS		/* the last number of a bundle that may be full before all is in it */
#define SPLITS 3
#endif
#ifndef BUNDLES
#define BUNDLES 7
#endif

#define bit(n) (1 << (n))
#define has(set, n) (((set) >> (n)) & 1)

#define X 1		/* entries, as bits */
#define GONE 2
#define Y 4
#define CLOSED 8

/* What a bundle holds. It is signed, so it is the same wherever it lies. */
byte content[BUNDLES + 1];
byte voids[BUNDLES + 1];

bool off;		/* the faults are over */

/* ---- STATE: l_ of the low side, r_ of the road, h_ of the high side ---- */

byte l_end;		/* entries in the journal */
byte l_cursor;		/* position that was acknowledged; 0: nothing is known, and all that there is is handed over, in parts */
byte l_part, l_whole;	/* how much of that was, and of which position all is (handoverRecord.Begun) */
byte l_made;		/* number of the last bundle */
byte l_mark;		/* the bundle that no guard confirmed; 0: none */
byte l_from, l_to, l_of;	/* its span, and of a part of all that there is the position; l_to is 0: it says nothing */
bool l_all_of_it;	/* it goes on from l_part, and not from l_cursor */
byte l_void, l_in;	/* numbers that came to nothing, and those of them that the last bundle tells of */

byte l_spool;		/* on the low half's disk */
byte l_have, l_sent;	/* its two records */
byte l_again;		/* what it means to send once more; in memory */
byte l_asked;		/* what a person asked for */

byte l_aborts = ABORTS, l_refeeds = REFEEDS, l_anews = ANEWS, l_disks = DISKS;
bool l_fed, l_lost, l_renewed;	/* the person fed everything again at the end; a disk was lost; everything was raised anew behind that */

byte r_losses = LOSSES;

byte h_stage, h_book;	/* the folder, and what came into it ever */
byte h_last, h_gaps;	/* enclave.Taken */
byte h_above;		/* what is there */
bool h_gone;		/* the removal of X is known */
byte h_wrote;		/* what was ever written: nothing is, twice */
byte h_crashes = CRASHES;

#define unsent (l_spool & ~(bit(l_sent + 1) - 1))

/* ---- PROMISE: reads both sides, and only asserts ---- */

/* Everything that was handed over is above, or in a bundle that lies there, or that the high enclave shows as a gap, or that
 * nothing newer has come after yet: only that one a reader of guard status cannot know of. */
#ifdef LIMIT_LAST		/* not so: a bundle is lost, nothing newer comes, and nobody is told */
#define newer(s) (s > h_last && has(l_spool & (unsent | l_again | l_asked), s))
#else
#define newer(s) (s > h_last)
#endif
#define told(s, e) (s <= l_made && has(content[s], e) && (newer(s) || has(h_gaps, s) || has(h_stage, s)))
#define somewhere(e) (told(1, e) || told(2, e) || told(3, e) || told(4, e) || told(5, e) || told(6, e) || told(7, e))
#define SILENT(e, is) ((l_cursor > e || l_part > e) && !(is) && !somewhere(e))
inline accounted() {
	assert(!SILENT(0, (h_above & X) || h_gone || l_end >= 2));	/* a removal stands for what it removed */
	assert(!SILENT(1, h_gone));
	assert(!SILENT(2, h_above & Y));
	assert(!SILENT(3, h_above & CLOSED))
}

/* ---- ROAD: one way. What is late was lost here, and is sent again. ---- */

inline road(n) {
	if
	:: !has(h_book, n) -> h_book = h_book | bit(n); h_stage = h_stage | bit(n)
	:: has(h_book, n)			/* what came whole once is not taken twice */
	:: r_losses > 0 && !off -> r_losses--
	fi
}

/* ---- LOW: the low enclave, the low half, and the person at the low side ---- */

/* enclave.RaiseAnew: nothing is known to be handed over any more, also not what is under way. */
inline anew() {
	l_cursor = 0; l_part = 0; l_whole = 0;
#ifndef ANEW_UNDONE
	l_to = 0
#endif
}

/* The journal of the low enclave. */
proctype Journal() {
	do
	:: l_end < 3 -> l_end++
	:: off && l_end == 3 -> l_end++; break
	od
}

/* enclave.Handed: the guard's word for what it has. */
inline confirm() {
	if
#ifdef PLANT_TRUST		/* what was made is taken for handed over, whatever the guard says that it has */
	:: l_mark != 0 ->
#else
	:: l_mark != 0 && l_have == l_mark ->
#endif
		if
		:: l_to == 0
		:: l_to > 0 && l_all_of_it ->
			if
#ifndef ANEW_MIXED		/* what goes on from a part that is not known any more says nothing */
			:: l_from != l_part
			:: l_from == l_part &&
#else
			::
#endif
				l_to < l_of -> l_part = l_to; l_whole = l_of
#ifndef ANEW_MIXED
			:: l_from == l_part &&
#else
			::
#endif
				l_to >= l_of -> l_part = 0; l_whole = 0; if :: l_of > l_cursor -> l_cursor = l_of :: else fi
			fi
#ifndef ANEW_UNDONE		/* so does what goes on from a position that is not */
		:: l_to > 0 && !l_all_of_it && (l_cursor == 0 || l_cursor < l_from)
		:: l_to > 0 && !l_all_of_it && l_cursor != 0 && l_cursor >= l_from ->
#else
		:: l_to > 0 && !l_all_of_it ->
#endif
			if :: l_to > l_cursor -> l_cursor = l_to :: else fi
		fi
	:: else
	fi
}
inline settle() {
	if
	:: l_mark != 0 && l_have == l_mark -> l_void = l_void & ~l_in
#ifdef PLANT_NOT_VOID		/* a number that came to nothing is not told of */
	:: else
#else
	:: l_mark != 0 && l_have != l_mark -> l_void = l_void | bit(l_mark)
	:: else
#endif
	fi;
	l_mark = 0; l_in = 0; l_from = 0; l_to = 0; l_of = 0; l_all_of_it = false
}

/* One call of HandRaise, and what the low half does with it. Where a crash or a cut is possible, what would have come next does not; what
 * no other process can see or disturb in between is one step. */
#define broken l_aborts > 0 && !off -> l_aborts--
proctype Hand() {
	byte from, to, upto, c;
	bool all;
again:
#ifdef TORN		/* what is acknowledged and what is void are two commits */
	atomic { confirm() };
	if :: true :: atomic { broken; goto again } fi;
	atomic { settle(); accounted() };
#else
	atomic { confirm(); settle(); accounted() };
#endif
end_nothing_to_hand:
	atomic {
		l_cursor < l_end -> all = (l_cursor == 0);
		if
		:: all && l_part > 0 -> from = l_part; to = l_whole
		:: all && l_part == 0 -> to = l_end
		:: !all -> from = l_cursor; to = l_end
		fi;
		upto = to;
		if			/* a bundle may be full */
		:: true
		:: to > from + 1 && l_made < SPLITS -> to = from + 1
		fi;
		c = ((bit(to) - 1) & ~(bit(from) - 1));
		if :: l_end >= 2 -> c = c & ~X :: else fi	/* what was removed since is passed over */
#if ANEWS + DISKS > 0
	};
	atomic {		/* meanwhile a person may have everything raised anew */
#endif
		assert(l_made < BUNDLES);		/* HandOver: durable, and then the bundle ends */
		l_made++; content[l_made] = c; voids[l_made] = l_void;
		l_mark = l_made; l_from = from; l_to = to; l_of = upto; l_all_of_it = all; l_in = l_void;
#ifdef PLANT_EARLY_HAVE		/* have is written before the bundle is whole and durable */
		l_have = l_mark;
		if
		:: l_spool = l_spool | bit(l_mark)
		:: broken
		fi;
#else
		if
		:: l_spool = l_spool | bit(l_mark)
#if DISKS > 0
			; goto durable
#else
			; l_have = l_mark
#endif
		:: broken; l_spool = l_spool | bit(l_mark)	/* it is in the spool, and the record does not say so */
		:: broken					/* nothing came, or not all of it */
		fi;
#endif
		from = 0; to = 0; upto = 0; all = false; c = 0; goto again
	};
durable:
	if
	:: atomic { has(l_spool, l_mark) -> l_have = l_mark; from = 0; to = 0; upto = 0; all = false; c = 0 }
	:: !has(l_spool, l_mark)		/* with its disk */
	fi;
	goto again
}

/* The low half's other thread. It knows nothing of what arrives. */
#ifdef PLANT_BACK		/* it waits until what it sent is above */
#define paced (h_last >= l_sent)
#else
#define paced true
#endif
inline lowest(n, set) { n = 1; do :: !has(set, n) -> n++ :: else -> break od }
proctype Send() {
	byte n;
end_all_sent:
	do
	:: atomic { unsent != 0 && paced -> lowest(n, unsent); road(n);
		if
		:: l_sent = n; l_again = l_again | bit(n)
		:: broken; l_again = 0			/* it ends before it notes that */
		fi; n = 0 }
	:: atomic { unsent == 0 && (l_again & l_spool) != 0 -> lowest(n, l_again & l_spool); road(n); l_again = l_again & ~bit(n); n = 0 }
	:: atomic { l_again != 0 && broken; l_again = 0 }	/* it ends, and starts again */
	:: atomic { unsent == 0 && l_asked != 0 && (l_asked & l_spool) == 0 -> l_asked = 0 }
	:: atomic { unsent == 0 && (l_asked & l_spool) != 0 -> lowest(n, l_asked & l_spool); road(n); l_asked = l_asked & ~bit(n); n = 0 }
	od
}

/* The person at the low side, and what may befall the low half's disk. She feeds again what she likes, and at the end everything that
 * the spool has: whatever is a gap above is in that. */
proctype Person() {
	byte n;
end_nothing_to_do:
	do
	:: atomic { l_refeeds > 0 && !off && l_sent > 0 -> l_refeeds--; n = 1; do :: n < l_sent -> n++ :: break od; l_asked = bit(n) & l_spool; n = 0 }
	:: atomic { l_anews > 0 && !off -> l_anews--; anew() }
	:: atomic { l_disks > 0 && !off -> l_disks--; l_spool = 0; l_have = 0; l_sent = 0; l_again = 0; l_asked = 0; l_lost = true }
	:: atomic { off && l_lost && !l_renewed -> anew(); l_renewed = true }
	:: atomic { off && !l_fed && l_end == 4 && l_cursor == l_end && unsent == 0 -> l_fed = true; l_asked = l_spool }
	od
}

/* ---- HIGH: the high half and the high enclave ---- */

inline put(e) {
	if
#ifdef PLANT_TWICE		/* whether it is there already is not looked at */
	:: has(c, e) && !(e == 0 && h_gone) ->
#else
	:: has(c, e) && !has(h_above, e) && !(e == 0 && h_gone) ->
#endif
		assert(!has(h_wrote, e));
		h_above = h_above | bit(e); h_wrote = h_wrote | bit(e)
	:: else
	fi
}
inline apply() {
	put(0);
	if
#ifdef PLANT_FORGET		/* a removal of what is not here leaves nothing */
	:: (c & GONE) -> h_gone = (h_above & X) != 0 || h_gone; h_above = h_above & ~X
#else
	:: (c & GONE) -> h_gone = true; h_above = h_above & ~X
#endif
	:: else
	fi;
	put(2); put(3);
	assert(!(h_gone && (h_above & X)))
}

/* TakeRaise and the taker. What it takes while a number is lacking it takes after 30 s; here at any time. */
inline note() {
	if
	:: has(h_gaps, n) -> h_gaps = h_gaps & ~bit(n)
	:: else ->
#ifndef PLANT_NO_GAP		/* what was passed over is not noted */
		k = h_last + 1;
		do :: k < n -> h_gaps = h_gaps | bit(k); k++ :: else -> break od;
#endif
		h_last = n
	fi;
	h_gaps = h_gaps & ~voids[n]
}
#define halted h_crashes > 0 && !off -> h_crashes--
proctype Take() {
	byte n, c, k;
end_all_taken:
	do
	:: atomic { h_stage != 0 -> lowest(n, h_stage); c = content[n];
		if
		:: n > h_last || has(h_gaps, n) ->
			if
			:: apply(); note(); h_stage = h_stage & ~bit(n)
			:: halted; c = c & (X | GONE); apply()	/* in the middle of what is in it */
			:: halted; apply()
			:: halted; apply(); note()		/* the file stays, and is brought again */
			fi
		:: else -> h_stage = h_stage & ~bit(n)		/* it was taken, or a later one has what is in it */
		fi;
		n = 0; c = 0; k = 0;
		accounted() }
	od
}

/* ---- WORLD ---- */

#define QUIET (off && l_fed && l_end == 4 && l_cursor == 4 && l_mark == 0 && unsent == 0 && (l_again & l_spool) == 0 && l_asked == 0 && h_stage == 0 && (!l_lost || l_renewed))

#define LOW_QUIET (off && l_fed && l_end == 4 && l_cursor == 4 && l_mark == 0 && unsent == 0 && (l_again & l_spool) == 0 && l_asked == 0)

init {
	atomic { run Journal(); run Hand(); run Send(); run Person();
#ifndef HIGH_AWAY		/* nothing above runs, and below everything goes on to its end */
		run Take()
#endif
	};
	atomic { l_end == 3 -> off = true };
#ifdef HIGH_AWAY
	LOW_QUIET; goto done;
#endif
	atomic { QUIET ->		/* a run that cannot come here ends in a state that is no end: that is an error, too */
		assert(h_above == (Y | CLOSED) && h_gone);
		assert(h_gaps == 0 || l_lost) }
#ifdef REACHED
	assert(false)
#endif
#ifdef LIMIT_GAPS_STAY	/* not so: what is raised anew closes no gap of a disk that was lost */
	assert(h_gaps == 0)
#endif
done:	skip
}
