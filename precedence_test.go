package redoubt_test

import (
	"errors"
	"testing"

	"redoubt"
)

func TestEveryPrecedenceHasATextThatReadsBack(t *testing.T) {
	for p := range redoubt.Precedence(redoubt.Precedences) {
		text, err := p.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		var back redoubt.Precedence
		if err := back.UnmarshalText(text); err != nil || back != p {
			t.Errorf("%q reads back as %v, %v", text, back, err)
		}
	}
	for _, wrong := range []string{"", "FLASH", "flash ", "urgent"} {
		if _, err := redoubt.ParsePrecedence(wrong); !errors.Is(err, redoubt.Invalid) {
			t.Errorf("%q: got %v, want Invalid", wrong, err)
		}
	}
	if _, err := redoubt.Precedence(redoubt.Precedences).MarshalText(); !errors.Is(err, redoubt.Invalid) {
		t.Errorf("a precedence above flash has a text: %v", err)
	}
}

func TestTheZeroPrecedenceIsRoutineAndFlashIsHighest(t *testing.T) {
	var zero redoubt.Precedence
	if zero != redoubt.Routine || zero.String() != "routine" {
		t.Errorf("the zero precedence is %v", zero)
	}
	if !(redoubt.Flash > redoubt.Immediate && redoubt.Immediate > redoubt.Priority && redoubt.Priority > redoubt.Routine) {
		t.Error("the precedences are out of order")
	}
}
