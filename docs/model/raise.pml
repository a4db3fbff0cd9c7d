/* The raise of docs/spec/guard.md, as it stands in enclave/handover.go, replica/raise.go, guard/feed.go and guard/take.go, for SPIN.
 * docs/model/README.md says what is left out and what was proved. `make model` checks it.
 *
 * Variables of the low side begin with l_, those of the high side with h_. Nothing under LOW names an h_, nothing under ROAD or HIGH an l_:
 * scripts/model looks at the text for that. PEOPLE read what is shown above and type it below.
 *
 * Four entries: 0 puts X, 1 removes X, 2 puts Y, 3 closes (it is written once the faults are over). Bundles are numbers from 1;
 * a set of entries is a byte of bits, a set of numbers a short. A bundle is written once, so where it lies is one bit.
 */

#ifndef ABORTS		/* the low half, the low enclave or what joins them dies: what the half held is gone, and its note stands */
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
#ifndef DISKS		/* times that the low half's note is lost, too: by a power cut, or with its disk */
#define DISKS 0
#endif
#ifndef MISSES		/* of bundles that the low half lets go of before it repeats them: it asks for them once more */
#define MISSES 0
#endif
#ifndef SPLITS		/* the last number of a bundle that may be full before all is in it */
#define SPLITS 3
#endif
#ifndef BUNDLES
#define BUNDLES 14		/* and no more, in a short */
#endif

#define bit(n) (1 << (n))
#define has(set, n) (((set) >> (n)) & 1)

#define X 1		/* entries, as bits */
#define GONE 2
#define Y 4
#define CLOSED 8

/* What a bundle holds. It is signed, so it is the same wherever it lies. */
byte content[BUNDLES + 1];
short voids[BUNDLES + 1];

bool off;		/* the faults are over */

/* ---- STATE: l_ of the low side, r_ of the road, h_ of the high side ---- */

byte l_end;		/* entries in the journal */
byte l_cursor;		/* position that was acknowledged; 0: nothing is known, and all that there is is handed over, in parts */
byte l_part, l_whole;	/* how much of that was, and of which position all is (handoverRecord.Begun) */
byte l_made;		/* number of the last bundle */
byte l_mark;		/* the bundle that no guard confirmed; 0: none */
byte l_from, l_to, l_upto;	/* its span, and of a part of all that there is the position; l_to is 0: it says nothing */
bool l_all_of_it;	/* it goes on from l_part, and not from l_cursor */
short l_void, l_in;	/* numbers that came to nothing, and those of them that the last bundle tells of */
short l_known;		/* numbers of which the low enclave knows what was in them */

byte l_have;		/* the low half's note: the newest that it had, */
short l_over;		/* and those about which nothing is left to do */
short l_new, l_again;	/* in its memory: what was not sent yet, and what is to be sent once more */
short l_covered;	/* and the numbers whose content something of l_new has */
byte l_of[BUNDLES + 1];	/* whose content a bundle has; 0: its own */

byte l_aborts = ABORTS, l_refeeds = REFEEDS, l_anews = ANEWS, l_disks = DISKS, l_misses = MISSES;

byte r_losses = LOSSES;

short h_stage, h_book;	/* the folder, and what came into it ever */
byte h_last;		/* enclave.Taken */
short h_gaps;
byte h_above;		/* what is there */
bool h_gone;		/* the removal of X is known */
byte h_wrote;		/* what was ever written: nothing is, twice */
byte h_crashes = CRASHES;

#define lacking ((bit(l_have + 1) - 2) & ~(l_over | l_new | l_again | l_covered))

/* ---- PROMISE: reads both sides, and only asserts ---- */

/* Everything that was handed over is above, or in a bundle that lies there, or that the high enclave shows as a gap, or that
 * nothing newer has come after yet: only that one a reader of guard status cannot know of. */
#ifdef LIMIT_LAST		/* not so: a bundle is lost, nothing newer comes, and nobody is told */
#define newer(s) (s > h_last && has(l_new | l_again | lacking, s))
#else
#define newer(s) (s > h_last)
#endif
#define told(s, e) (s <= l_made && has(content[s], e) && (newer(s) || has(h_gaps, s) || has(h_stage, s)))
#define somewhere(e) (told(1, e) || told(2, e) || told(3, e) || told(4, e) || told(5, e) || told(6, e) || told(7, e) || told(8, e) || told(9, e) || told(10, e) || told(11, e) || told(12, e) || told(13, e) || told(14, e))
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
	l_to = 0
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
			:: l_from != l_part
			:: l_from == l_part &&
				l_to < l_upto -> l_part = l_to; l_whole = l_upto
			:: l_from == l_part &&
				l_to >= l_upto -> l_part = 0; l_whole = 0; if :: l_upto > l_cursor -> l_cursor = l_upto :: else fi
			fi
		:: l_to > 0 && !l_all_of_it && (l_cursor == 0 || l_cursor < l_from)
		:: l_to > 0 && !l_all_of_it && l_cursor != 0 && l_cursor >= l_from ->
			if :: l_to > l_cursor -> l_cursor = l_to :: else fi
		fi
	:: else
	fi
}
inline settle() {
	if
	:: l_mark != 0 && l_have == l_mark -> l_void = l_void & ~l_in
#ifdef PLANT_NOT_VOID		/* a number that came to nothing is not told of */
	:: l_mark != 0 && l_have != l_mark -> l_known = l_known & ~bit(l_mark)
#else
	:: l_mark != 0 && l_have != l_mark -> l_void = l_void | bit(l_mark); l_known = l_known & ~bit(l_mark)
#endif
	:: else
	fi;
	l_mark = 0; l_in = 0; l_from = 0; l_to = 0; l_upto = 0; l_all_of_it = false
}

/* The low half ends, and with it what it holds. */
inline ends() { l_new = 0; l_again = 0; l_covered = 0 }
inline lowest(n, set) { n = 1; do :: !has(set, n) -> n++ :: else -> break od }

/* One call of HandRaise or HandAgain, and what the low half does with it. Where a crash or a cut is possible, what would have come next does not; what
 * no other process can see or disturb in between is one step. */
#define broken l_aborts > 0 && !off -> l_aborts--
proctype Hand() {
	byte from, to, upto, c, n;
	bool all;
again:
#ifdef TORN		/* what is acknowledged and what is void are two commits */
	atomic { confirm() };
	if :: true :: atomic { broken; ends(); goto again } fi;
	atomic { settle(); accounted() };
#else
	atomic { confirm(); settle(); accounted() };
#endif
end_nothing_to_hand:
	if
	:: atomic { lacking != 0 -> lowest(n, lacking);		/* HandAgain, of what is known; else it is given up */
		if
		:: !has(l_known, n) -> l_over = l_over | bit(n); n = 0; goto again
		:: else
		fi;
		c = content[n];
		if :: l_end >= 2 -> c = c & ~X :: else fi;
		assert(l_made < BUNDLES);
		l_made++; content[l_made] = c;
#ifdef PLANT_MUTE		/* what holds again what another held does not say what that said */
		voids[l_made] = l_void | bit(n);
#else
		voids[l_made] = l_void | voids[n] | bit(n);
#endif
		l_of[l_made] = n; l_mark = l_made; l_in = l_void }
	:: atomic { l_cursor < l_end -> all = (l_cursor == 0);	/* also beside what is lacking: they take turns */
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
		l_mark = l_made; l_from = from; l_to = to; l_upto = upto; l_all_of_it = all; l_in = l_void }
	fi;
	atomic {
#ifndef PLANT_NOT_KNOWN		/* what is in a bundle is kept by its number in the commit that makes it */
		l_known = l_known | bit(l_made);
#endif
		if
		:: l_have = l_mark; l_new = l_new | bit(l_mark); if :: n > 0 -> l_covered = l_covered | bit(n) :: else fi
		:: broken; ends()					/* nothing came, or not all of it */
		:: broken; l_have = l_mark; ends()			/* it came, was noted, and is gone */
		fi;
		from = 0; to = 0; upto = 0; all = false; c = 0; n = 0; goto again
	}
}

/* The low half's other thread. It knows nothing of what arrives. */
#ifdef PLANT_BACK		/* it waits until what it sent is above */
#define paced (h_last + 1 >= l_have)
#else
#define paced true
#endif
proctype Send() {
	byte n;
end_all_sent:
	do
	:: atomic { l_new != 0 && paced -> lowest(n, l_new); road(n);
		if
		:: l_new = l_new & ~bit(n); l_again = l_again | bit(n);
		   if :: l_of[n] > 0 -> l_over = l_over | bit(l_of[n]); l_covered = l_covered & ~bit(l_of[n]) :: else fi
		:: broken; ends()			/* it ends before it notes that */
		fi; n = 0 }
	:: atomic { l_new == 0 && l_again != 0 -> lowest(n, l_again); road(n); l_again = l_again & ~bit(n); l_over = l_over | bit(n); n = 0 }
#ifndef ALONE		/* there is no room for it, and what there was is over: it was repeated, or given again before */
	:: atomic { l_again != 0 && !off -> lowest(n, l_again); l_again = l_again & ~bit(n); l_over = l_over | bit(n); n = 0 }
#endif
	:: atomic { l_again != 0 && l_misses > 0 && !off -> l_misses--; lowest(n, l_again); l_again = l_again & ~bit(n);
#ifdef PLANT_MISSED		/* what was let go before it was repeated is taken for over */
		l_over = l_over | bit(n);
#endif
		n = 0 }
	:: atomic { l_new + l_again != 0 && broken; ends() }
	:: atomic { l_disks > 0 && !off -> l_disks--; ends(); l_have = 0; l_over = 0 }
	od
}

/* ---- PEOPLE: one at the low side, who feeds again what she likes, has everything raised anew, and at the end feeds what she is told is a gap ---- */

#define still (off && l_end == 4 && l_cursor == l_end && l_mark == 0 && l_new == 0 && l_again == 0 && lacking == 0)
proctype Person() {
	byte n, fed;
end_nothing_to_do:
	do
	:: atomic { l_refeeds > 0 && !off && l_have > 0 -> l_refeeds--; n = 1; do :: n < l_have -> n++ :: break od; l_over = l_over & ~bit(n); n = 0 }
	:: atomic { l_anews > 0 && !off -> l_anews--; anew() }
	#ifndef ALONE		/* nobody looks */
	:: atomic { still && h_stage == 0 && h_gaps != 0 && fed < 3 -> fed++; l_over = l_over & ~h_gaps }	/* she does not do so for ever */
#endif
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

#define QUIET (still && h_stage == 0 && h_gaps == 0)

init {
	atomic { run Journal(); run Hand(); run Send(); run Person();
#ifndef HIGH_AWAY		/* nothing above runs, and below everything goes on to its end */
		run Take()
#endif
	};
	atomic { l_end == 3 -> off = true };
#ifdef HIGH_AWAY
	still; goto done;
#endif
	atomic { QUIET ->		/* a run that cannot come here ends in a state that is no end: that is an error, too */
		assert(h_above == (Y | CLOSED) && h_gone) }
#ifdef REACHED
	assert(false)
#endif
done:	skip
}
