package node

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"redoubt"
	"redoubt/estate"
	"redoubt/keys"
)

// An exercise estate keeps its subjects' private keys in the state, so that one person can
// play all of them. They lie apart from the nodes, which never open them, sealed
// under a key file that lies beside them: safe from a backup tool's grep, not from a thief.

const exerciseDir = ".exercise" // no node is named so

// exercise is the sealed content: the estate and the keys made for it.
type exercise struct {
	Estate   estate.Document                `json:"estate"`
	Subjects map[redoubt.SubjectName][]byte `json:"subjects"` // Ed25519 seeds
}

// keyringWait is how long a command waits for another that has the exercise's keyring
// open: each holds it for a few milliseconds.
const keyringWait = 10 * time.Second

// HasExercise reports whether the state holds an exercise.
func (s State) HasExercise() bool {
	_, err := os.Stat(filepath.Join(s.dir, exerciseDir, "keyring"))
	return err == nil
}

// withExercise opens the exercise's keyring for the length of do.
func (s State) withExercise(do func(k *keys.Keyring, path string) error) error {
	dir := filepath.Join(s.dir, exerciseDir)
	deadline := time.Now().Add(keyringWait)
	for {
		k, err := keys.Open(filepath.Join(dir, "keyring"), keys.KeyFile(filepath.Join(dir, "key")))
		if err == nil {
			return errors.Join(do(k, filepath.Join(dir, "sealed")), k.Close())
		}
		if !errors.Is(err, redoubt.Unavailable) || time.Now().After(deadline) {
			return err
		}
		time.Sleep(2 * time.Millisecond)
	}
}

const purposeExercise = "exercise"

func (s State) exercise() (x exercise, err error) {
	if !s.HasExercise() {
		return exercise{}, &redoubt.Error{Op: "node.exercise", Object: s.dir, Kind: redoubt.NotFound,
			Err: errors.New("the state holds no exercise, so no subject's keys"), Hint: "give the subject's own key with --key FILE"}
	}
	err = s.withExercise(func(k *keys.Keyring, path string) (err error) {
		x, err = loadExercise(k, path)
		return err
	})
	return x, err
}

func loadExercise(k *keys.Keyring, path string) (exercise, error) {
	var x exercise
	plain, err := k.OpenFile(path, purposeExercise)
	if err == nil {
		defer clear(plain)
		err = json.Unmarshal(plain, &x)
	}
	if err != nil {
		return x, &redoubt.Error{Op: "node.loadExercise", Object: path, Kind: redoubt.Corrupt, Err: err,
			Hint: "put the folder .exercise back from its backup, or begin anew with another --state"}
	}
	return x, nil
}

func saveExercise(k *keys.Keyring, path string, x exercise) error {
	plain, err := json.Marshal(x)
	if err != nil {
		return &redoubt.Error{Op: "node.saveExercise", Err: err}
	}
	defer clear(plain)
	return k.SealFile(path, purposeExercise, plain)
}

// ExerciseEstate is the exercise that the state holds, keys and signatures included.
func (s State) ExerciseEstate() (*estate.Estate, estate.Document, error) {
	x, err := s.exercise()
	if err != nil {
		return nil, estate.Document{}, err
	}
	e, err := x.Estate.Read()
	return e, x.Estate, err
}

// SubjectKey is the private key of a subject of an exercise.
func (s State) SubjectKey(name redoubt.SubjectName) (ed25519.PrivateKey, error) {
	x, err := s.exercise()
	if err != nil {
		return nil, err
	}
	seed, ok := x.Subjects[name]
	if !ok {
		return nil, &redoubt.Error{Op: "node.SubjectKey", Object: string(name), Kind: redoubt.NotFound,
			Err: errors.New("the state keeps no key of that subject"), Hint: "give the subject's own key with --key FILE, or see: redoubt estate show"}
	}
	return ed25519.NewKeyFromSeed(seed), nil
}

// MakeSubjectKey makes a key for one more subject of an exercise, or finds the one made before,
// keeps it, and gives the public half in base64.
func (s State) MakeSubjectKey(name redoubt.SubjectName) (string, error) {
	var public string
	err := s.withExercise(func(k *keys.Keyring, path string) error { // open throughout, so that two at once lose no key
		x, err := loadExercise(k, path)
		if err != nil {
			return err
		}
		if x.Subjects[name] == nil {
			seed := make([]byte, ed25519.SeedSize)
			if _, err := rand.Read(seed); err != nil {
				return &redoubt.Error{Op: "node.MakeSubjectKey", Err: err}
			}
			x.Subjects[name] = seed
			err = saveExercise(k, path, x)
		}
		public = publicKey(x.Subjects[name])
		return err
	})
	return public, err
}

func publicKey(seed []byte) string {
	return base64.StdEncoding.EncodeToString(ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey))
}

// PutExercise makes e the state's exercise: keys are made for people that have none, those
// made earlier are kept, and two officers sign. It returns the estate with its keys. The
// caller holds the state's lock.
func (s State) PutExercise(e *estate.Estate) (*estate.Estate, error) {
	const op = "node.PutExercise"
	if !e.Exercise {
		return nil, &redoubt.Error{Op: op, Kind: redoubt.Denied, Err: errors.New("the estate is no exercise: its people keep their own keys")}
	}
	if err := s.beginExercise(); err != nil {
		return nil, err
	}
	x, err := s.exercise()
	if errors.Is(err, redoubt.NotFound) {
		x, err = exercise{Subjects: map[redoubt.SubjectName][]byte{}}, nil
	}
	if err != nil {
		return nil, err
	}
	doc := e.Document()
	doc.Keys = map[redoubt.SubjectName]string{}
	changed := !bytes.Equal(x.Estate.Text, doc.Text) || !bytes.Equal(x.Estate.SPIF, doc.SPIF) || !maps.EqualFunc(x.Estate.Agreements, doc.Agreements, bytes.Equal)
	for _, name := range e.Keyless() { // people, and guards for each of their sides
		if x.Subjects[name] == nil {
			seed := make([]byte, ed25519.SeedSize)
			if _, err := rand.Read(seed); err != nil {
				return nil, &redoubt.Error{Op: op, Err: err}
			}
			x.Subjects[name], changed = seed, true
		}
		doc.Keys[name] = publicKey(x.Subjects[name])
	}
	full := e.WithKeys(doc.Keys)
	if !changed {
		return full, nil
	}
	if doc.Sigs, err = s.signExercise(full, x); err != nil {
		return nil, err
	}
	x.Estate = doc
	return full, s.withExercise(func(k *keys.Keyring, path string) error { return saveExercise(k, path, x) })
}

// signExercise has every officer whose key the state keeps sign: those of the estate in
// force and those of the new one, for the first must agree to the second.
func (s State) signExercise(e *estate.Estate, x exercise) ([]redoubt.Signature, error) {
	officer := func(e *estate.Estate, name redoubt.SubjectName) bool {
		if e == nil {
			return false
		}
		p, ok := e.Person(name)
		return ok && slices.Contains(p.Roles, redoubt.RoleOfficer)
	}
	var was *estate.Estate
	if len(x.Estate.Text) > 0 {
		var err error
		if was, err = x.Estate.Read(); err != nil {
			return nil, err
		}
	}
	var sigs []redoubt.Signature
	for name, seed := range x.Subjects {
		if officer(e, name) || officer(was, name) {
			sig := ed25519.Sign(ed25519.NewKeyFromSeed(seed), estate.Message(e))
			sigs = append(sigs, redoubt.Signature{Signer: name, Sig: base64.StdEncoding.EncodeToString(sig)})
		}
	}
	return sigs, nil
}

func (s State) beginExercise() error {
	if s.HasExercise() {
		return nil
	}
	dir := filepath.Join(s.dir, exerciseDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return &redoubt.Error{Op: "node.beginExercise", Object: dir, Err: errors.Unwrap(err)}
	}
	k, err := keys.Create(filepath.Join(dir, "keyring"), keys.KeyFile(filepath.Join(dir, "key")), nil)
	if err != nil {
		return err
	}
	return k.Close()
}
