package keys

import (
	"fmt"
	"io"
	"log/slog"
)

// DataKey seals the content of one version. It prints as "redacted" in every format and
// encodes to nothing. The zero DataKey seals and opens nothing.
type DataKey struct {
	key [32]byte
	set bool
}

// Wipe overwrites this copy of the key; the zero DataKey is left.
func (d *DataKey) Wipe() { *d = DataKey{} }

const redacted = "redacted"

// Format hides the key from every verb of fmt.
func (DataKey) Format(f fmt.State, _ rune) { io.WriteString(f, redacted) }

// String hides the key.
func (DataKey) String() string { return redacted }

// GoString hides the key from %#v.
func (DataKey) GoString() string { return redacted }

// LogValue hides the key from slog.
func (DataKey) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText hides the key from JSON and text encoders.
func (DataKey) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// Format hides the keys from every verb of fmt.
func (*Keyring) Format(f fmt.State, _ rune) { io.WriteString(f, redacted) }

// LogValue hides the keys from slog.
func (*Keyring) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText hides the keys from JSON and text encoders.
func (*Keyring) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// Format hides the key from every verb of fmt.
func (*Signer) Format(f fmt.State, _ rune) { io.WriteString(f, redacted) }

// LogValue hides the key from slog.
func (*Signer) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText hides the key from JSON and text encoders.
func (*Signer) MarshalText() ([]byte, error) { return []byte(redacted), nil }
