/* The release of docs/spec/guard.md, as it stands in enclave/review.go, enclave/releasework.go, enclave/accept.go, enclave/footing.go, identity/review.go and guard/release.go.
 * docs/model/README.md says what is left out and what was proved. `make model` checks it.
 *
 * Variables of the source begin with s_, of the target with t_, of the guard with g_; w_ is of the world: people and what they know. Two
 * releases are on their way. A statement is its release, its content (0 or 1) and its terms (0 or 1: the label, the name, everything
 * else), and is a number from 0 to 7; what somebody signed is a byte of bits. People: 0 asks for both, and has the role reviewer as well; 1 and 2
 * are reviewers; 3 is one whom 1 made a reviewer.
 */

#ifndef CUTS		/* of a call of the guard's, or of its life: wherever its answer may be lost */
#define CUTS 2
#endif
#ifndef TURNS		/* what may change at the source: a person, a version, the time, the policy */
#define TURNS 2
#endif
#ifndef CAPTURE		/* whether the guard may be taken over, at any time, and for good */
#define CAPTURE 1
#endif
#ifndef LEAK		/* whether it knows every signature that was ever made, also what the source did not take or never gave it */
#define LEAK 0
#endif
#ifndef RELEASES
#define RELEASES 2
#endif
#ifndef CONSENT		/* whether what leaves needs its originator's consent, who is none of the four */
#define CONSENT 0
#endif
#define bit(n) (1 << (n))
#define has(set, n) (((set) >> (n)) & 1)
#define statement(id, content, terms) ((id) * 4 + (content) * 2 + (terms))

#define two(set) ((set) != 0 && ((set) & ((set) - 1)) != 0)

mtype = { yes, no, requested, review, approved, released, refused, denied, dead };

/* ---- STATE ---- */
mtype s_state[2] = requested;
byte s_statement[2];		/* from review on */
byte s_signers[2];		/* whose signatures the source took, as bits */
byte s_policy, t_policy, g_policy;	/* the policy and the rules, as each knows them: 1 is another one */
byte s_roles = 15;		/* who is a reviewer, at the source */
bool s_version = true, s_cleared = true, w_late;	/* the version is current; who asked is cleared; the time is over */
bool s_fell;			/* what the version was written over by was removed: it is current again */
bool s_moved;			/* who asked was changed since */
byte s_footing, s_stood[2];	/* how often person 1 was changed, and when she signed */
bool w_broken;			/* the version was not current, or who asked not cleared, at any time since both were asked for */
byte w_unseated;		/* releases whose signer 1 was no reviewer at any time since she signed, as bits */
byte w_signed[4];		/* what each person ever signed, taken by the source or not */
byte w_known[4];		/* of that what a guard that was taken over knows */

bool s_consent[2];		/* the source took the originator's */
byte w_consented, w_consent_known;	/* which statements she ever consented to; of that what a guard that was taken over knows */

byte s_given;			/* releases that were fetched as approved while all that they rest on stood, as bits */
byte t_taken[2];		/* 1 and the statement of what was taken */
byte t_versions[2];		/* of how many versions it is */
bool g_captured, g_waits;

byte cuts = CUTS, turns = TURNS;

/* ---- SOURCE ---- */

#define cleared_and_apart(a, b) ((a) != (b) && !((a) == 1 && (b) == 3) && !((a) == 3 && (b) == 1))
#define consented(id) (!CONSENT || s_consent[id])
#ifdef PLANT_COMES_BACK		/* what changed and is as it was is taken for what it was */
#define stayed(id) true
#else
#define stayed(id) (!s_fell && !s_moved && (!has(s_signers[id], 1) || s_stood[id] == s_footing))
#endif
#define rests(id) (!w_late && s_policy == 0 && s_version && s_cleared && (s_signers[id] & ~s_roles) == 0 && stayed(id))

/* A reviewer looks at what would leave, and signs exactly that. The source holds her against its rules behind that, so a signature may be
 * in the world that it did not take. Who denies is person 2; who withdraws is person 0. */
proctype People() {
	byte id, p;
end_nobody_signs:
	do
	:: atomic { if :: id = 0 :: id = 1 fi; if :: p = 0 :: p = 1 :: p = 2 :: p = 3 fi;
		if
		:: s_state[id] == review && !has(s_signers[id], p) && !two(s_signers[id]) ->
			if :: LEAK -> w_signed[p] = w_signed[p] | bit(s_statement[id]); w_known[p] = w_signed[p] :: else fi;
			if
			:: !rests(id) -> s_state[id] = dead
#ifndef LAX_SOURCE		/* the source takes whoever signs: the target looks anew */
			:: rests(id) && (p == 0 || !has(s_roles, p) || (s_signers[id] != 0 && (!cleared_and_apart(p, 1) && has(s_signers[id], 1) || !cleared_and_apart(p, 3) && has(s_signers[id], 3))))
#endif
			:: else ->
				if :: p == 1 -> s_stood[id] = s_footing :: else fi;
				s_signers[id] = s_signers[id] | bit(p); w_signed[p] = w_signed[p] | bit(s_statement[id]);
				if :: two(s_signers[id]) && consented(id) -> s_state[id] = approved :: else fi
			fi
		:: CONSENT && s_state[id] == review && !s_consent[id] ->	/* ConsentRelease */
			if :: LEAK -> w_consented = w_consented | bit(s_statement[id]); w_consent_known = w_consented :: else fi;
			if
			:: !rests(id) -> s_state[id] = dead
			:: else ->
				s_consent[id] = true; w_consented = w_consented | bit(s_statement[id]);
				if :: two(s_signers[id]) -> s_state[id] = approved :: else fi
			fi
		:: else
		fi;
		id = 0; p = 0 }
	:: atomic { turns > 0 -> turns--;
		if
		:: s_state[0] == requested || s_state[0] == review || s_state[0] == approved -> s_state[0] = denied
		:: s_state[0] == requested || s_state[0] == review || s_state[0] == approved -> s_state[0] = dead	/* withdrawn */
		:: s_version -> s_version = false; w_broken = true
		:: !s_version -> s_version = true; s_fell = true	/* Enclave.remove */
		:: s_cleared -> s_cleared = false; s_moved = true; w_broken = true
		:: !s_cleared -> s_cleared = true
		:: has(s_roles, 1) -> s_roles = s_roles & ~bit(1); s_footing++;
			if :: has(s_signers[0], 1) -> w_unseated = w_unseated | bit(0) :: else fi;
			if :: has(s_signers[1], 1) -> w_unseated = w_unseated | bit(1) :: else fi
		:: !has(s_roles, 1) -> s_roles = s_roles | bit(1); s_footing++
		:: w_late = true
		:: s_policy = 1
		:: t_policy = 1			/* a new estate reaches each of the three in its own time */
		:: g_policy = 1
		fi }
	od
}

/* SubmitRelease: what stands in the statement comes of what the guard handed in. */
inline submit(id, content) {
	if
	:: s_state[id] == requested && rests(id) -> s_state[id] = review; s_statement[id] = statement(id, content, 0)
	:: s_state[id] == requested && !rests(id) -> s_state[id] = dead
	:: else
	fi
}

/* FetchApproved: got says whether the guard has the package now. */
inline fetch(id) {
	got = false;
	if
#ifdef PLANT_NO_REST		/* what an approval rests on is not looked at when it is fetched */
	:: s_state[id] == approved -> got = true; if :: rests(id) -> s_given = s_given | bit(id) :: else fi
#else
	:: s_state[id] == approved && rests(id) -> got = true; s_given = s_given | bit(id);
		assert(!w_broken && !has(w_unseated, id))			/* all stood all the time, and not when somebody looked alone */
	:: s_state[id] == approved && !rests(id) -> s_state[id] = dead
#endif
	:: else
	fi;
	if
	:: got -> p = 0;
		do
		:: p < 4 && has(s_signers[id], p) -> w_known[p] = w_known[p] | bit(s_statement[id]); p++
		:: p < 4 && !has(s_signers[id], p) -> p++
		:: else -> break
		od; p = 0;
		if :: s_consent[id] -> w_consent_known = w_consent_known | bit(s_statement[id]) :: else fi
	:: else
	fi
}

/* FinishRelease. A receipt is the target's own: its signature, over what two signed here. */
#define genuine(id) (t_taken[id] == s_statement[id] + 1 && two(s_signers[id]) && consented(id))
inline finish(id, receipt) {
	if
#ifdef PLANT_RECEIPT		/* the guard's word is enough */
	:: receipt -> s_state[id] = released
#else
#ifdef DENIED_DEAF		/* of what was denied meanwhile no receipt is taken */
	:: receipt && genuine(id) && s_state[id] != denied -> s_state[id] = released
#else
	:: receipt && genuine(id) -> s_state[id] = released
#endif
#endif
	:: !receipt && s_state[id] == approved -> s_state[id] = refused
	:: else
	fi;
	assert(!(s_state[id] == released && t_taken[id] == 0))
}

/* ---- TARGET ---- */

#define signed_by(p, st) has(w_known[p], st)

/* AcceptRelease of a statement, signatures of two people over it, and content. said is its answer. */
inline accept(st, a, b, bytes) {
	said = no;
	if
#ifdef RULES_FIRST
	:: t_policy != 0
	:: t_policy == 0 && t_taken[st / 4] == st + 1 -> said = yes
#else
	:: t_taken[st / 4] == st + 1 -> said = yes	/* the same once more writes nothing */
#endif
#ifndef PLANT_TWICE		/* it is not on record what was taken */
	:: t_taken[st / 4] != 0 && t_taken[st / 4] != st + 1
	:: t_taken[st / 4] == 0 && t_policy == 0 && !w_late &&
#else
	:: t_policy == 0 && !w_late &&
#endif
#ifndef PLANT_ONE_SIGNS		/* two signatures may be of one person */
		a != b &&
#endif
#ifndef PLANT_WHO_ASKED		/* who asked may sign */
		a != 0 && b != 0 &&
#endif
#ifndef PLANT_CONTENT		/* what comes is not held against what was signed */
		bytes == ((st >> 1) & 1) &&
#endif
		(a == b || cleared_and_apart(a, b)) &&
#ifndef PLANT_NO_CONSENT	/* the target leaves the consent to the source */
		(!CONSENT || has(w_consent_known, st)) &&
#endif
#ifdef PLANT_DIGEST_ALONE	/* what is signed is the content, and not under what terms */
		(signed_by(a, st) || signed_by(a, st ^ 1)) && (signed_by(b, st) || signed_by(b, st ^ 1)) ->
#else
		signed_by(a, st) && signed_by(b, st) ->
#endif
		said = yes; t_taken[st / 4] = st + 1; t_versions[st / 4]++;
		assert(t_versions[st / 4] == 1);				/* one release is one version */
		assert(a != b && a != 0 && b != 0 && cleared_and_apart(a, b));	/* two, neither of whom asked, neither of whom made the other */
		assert(has(w_signed[a], st) && has(w_signed[b], st));		/* who signed exactly this */
		assert(!CONSENT || has(w_consented, st));			/* and whose originator consented to exactly this */
		assert(bytes == ((st >> 1) & 1));				/* and this content */
		assert(LEAK || (has(s_given, st / 4) && st == s_statement[st / 4]))	/* the source had it approved, and all stood when it was fetched */
	:: else
	fi
}

/* ---- GUARD ---- */

/* As it is. Each step may be the last: whatever was not written elsewhere is forgotten. */
#define cut atomic { cuts > 0 -> cuts--; goto idle }
proctype Guard() {
	byte id, st, p, a, b;
	bool got;
	mtype said;
end_idle:
idle:
	atomic { id = 0; st = 0; a = 0; b = 0; got = false; said = no; g_waits = true };

end_waits:
	if
	:: atomic { !g_captured && s_state[0] == requested -> g_waits = false; submit(0, 0); goto idle }
	:: atomic { !g_captured && s_state[1] == requested -> g_waits = false; submit(1, 1); goto idle }
	:: atomic { !g_captured && s_state[0] == approved -> g_waits = false; id = 0; fetch(0) }
	:: atomic { !g_captured && s_state[1] == approved -> g_waits = false; id = 1; fetch(1) }
	:: atomic { g_captured -> g_waits = false; goto done }
	fi;
	if :: !got -> goto idle :: got :: cut fi;
	d_step { st = s_statement[id]; do :: !has(s_signers[id], a) -> a++ :: else -> break od; b = a + 1; do :: !has(s_signers[id], b) -> b++ :: else -> break od };
	if				/* its own rules are others by now */
#ifdef OWN_RULES
	:: atomic { g_policy != 0 -> finish(id, false); goto idle }
#else
	:: atomic { g_policy != 0 -> goto idle }
#endif
	:: else
	fi;
	atomic { accept(st, a, b, ((st >> 1) & 1)) };
	if :: true :: cut fi;	/* the answer is lost */
	atomic { finish(id, (said == yes)) };
	goto idle;
done:	skip
}

/* Taken over: it hands in, brings and says what it likes, of all that it knows. */
proctype Captured() {
	byte id, st, p, a, b, bytes;
	bool got;
	mtype said;
end_may_be:
	atomic { CAPTURE && !g_captured -> g_captured = true };
end_quiet:
	do
	:: atomic { if :: id = 0 :: id = 1 fi;
		if
		:: true -> submit(id, 0)
		:: true -> submit(id, 1)
		:: true -> fetch(id)
		:: true -> finish(id, true)
		:: true -> finish(id, false)
		:: st = id * 4; if :: true :: st = st + 1 :: st = st + 2 :: st = st + 3 fi;
			if :: a = 0 :: a = 1 :: a = 2 :: a = 3 fi; b = a; do :: b < 3 -> b++ :: break od;	/* in either order it is the same */
			if :: bytes = 0 :: bytes = 1 fi;
			accept(st, a, b, bytes)
		fi;
		id = 0; st = 0; p = 0; a = 0; b = 0; bytes = 0; got = false; said = 0 }
	od
}

/* ---- WORLD ---- */

/* When an honest guard has nothing left to do. */
#define QUIET (!g_captured && s_state[0] != requested && s_state[0] != approved && s_state[1] != requested && s_state[1] != approved && g_waits)
#ifdef TOLD
#define knows(id) (s_state[id] == released)
#else		/* an answer that was lost is not fetched again of a release that died, or was denied, meanwhile */
#define knows(id) (s_state[id] == released || s_state[id] == dead || s_state[id] == denied)
#endif
#define settled(id) (t_taken[id] != 0 && knows(id) || t_taken[id] == 0 && s_state[id] != released)

init {
	atomic { if :: RELEASES == 1 -> s_state[1] = refused :: else fi; run People(); run Guard(); run Captured() };
end_never:
#ifdef REACHED
	s_state[0] == released -> assert(false)
#elif defined LIMIT_LIES		/* a guard that was taken over brings a release, and says that it was refused */
	t_taken[0] != 0 && s_state[0] == refused -> assert(false)
#else
	QUIET && (!settled(0) || !settled(1)) -> assert(false)
#endif
}
