package redoubt

// Precedence says how urgent something is on a link: what is higher goes first, down to the
// datagram. The zero Precedence is Routine, so nobody is urgent by oversight.
type Precedence uint8

// The precedences of CONTRACT, least urgent first.
const (
	Routine Precedence = iota
	Priority
	Immediate
	Flash
)

// Precedences is how many there are: a Precedence indexes an array of this length.
const Precedences = 4

var precedenceText = [Precedences]string{Routine: "routine", Priority: "priority", Immediate: "immediate", Flash: "flash"}

// ParsePrecedence reads `flash|immediate|priority|routine`, in lower case; anything else,
// the empty text too, is Invalid.
func ParsePrecedence(text string) (Precedence, error) {
	for p, t := range precedenceText {
		if t == text {
			return Precedence(p), nil
		}
	}
	return Routine, &Error{Op: "ParsePrecedence", Object: text, Kind: Invalid, Hint: "one of flash, immediate, priority, routine"}
}

// Valid tells whether p is one of the four.
func (p Precedence) Valid() bool { return p < Precedences }

// String gives the text that ParsePrecedence reads.
func (p Precedence) String() string {
	if !p.Valid() {
		return "invalid precedence"
	}
	return precedenceText[p]
}

// MarshalText gives String; a Precedence that is none of the four is Invalid.
func (p Precedence) MarshalText() ([]byte, error) {
	if !p.Valid() {
		return nil, &Error{Op: "Precedence.MarshalText", Kind: Invalid}
	}
	return []byte(precedenceText[p]), nil
}

// UnmarshalText is ParsePrecedence.
func (p *Precedence) UnmarshalText(text []byte) (err error) {
	*p, err = ParsePrecedence(string(text))
	return err
}
