package keys

import (
	"errors"
	"slices"

	"redoubt"
)

// Secret gives the secret kept under name, and when there is none makes it with fresh
// and keeps it, durable on return. fresh must not call the keyring. A name is 1 to
// MaxNameBytes bytes, a secret at most MaxSecretBytes. The caller owns the copy.
func (k *Keyring) Secret(name string, fresh func() ([]byte, error)) ([]byte, error) {
	const op = "keys.Secret"
	if name == "" || len(name) > MaxNameBytes {
		return nil, &redoubt.Error{Op: op, Kind: redoubt.Invalid, Err: errors.New("name length")}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.body == nil {
		return nil, closed(op)
	}
	if value, ok := k.body.secrets[name]; ok {
		return slices.Clone(value), nil
	}
	if fresh == nil {
		return nil, &redoubt.Error{Op: op, Object: name, Kind: redoubt.NotFound}
	}
	if len(k.body.secrets) >= MaxSecrets {
		return nil, &redoubt.Error{Op: op, Object: name, Kind: redoubt.TooLarge, Err: errors.New("too many secrets")}
	}
	value, err := fresh()
	if err != nil {
		return nil, &redoubt.Error{Op: op, Object: name, Kind: redoubt.KindOf(err), Err: err}
	}
	if len(value) > MaxSecretBytes {
		return nil, &redoubt.Error{Op: op, Object: name, Kind: redoubt.TooLarge}
	}
	next := k.body.clone()
	next.secrets[name] = slices.Clone(value)
	if err := k.change(op, next); err != nil {
		clear(next.secrets[name])
		return nil, err
	}
	return value, nil
}

// ForgetSecret destroys the secret under name, durable on return, as far as the package
// comment says. A name that keeps nothing is no error.
func (k *Keyring) ForgetSecret(name string) error {
	const op = "keys.ForgetSecret"
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.body == nil {
		return closed(op)
	}
	old, ok := k.body.secrets[name]
	if !ok {
		return nil
	}
	next := k.body.clone()
	delete(next.secrets, name)
	if err := k.change(op, next); err != nil {
		return err
	}
	clear(old)
	return nil
}
