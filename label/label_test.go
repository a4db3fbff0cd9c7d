package label

import "testing"

// usa is the built-in policy of the United States.
func usa(t testing.TB) *Policy { return policy(t, "USA") }

func policy(t testing.TB, name string) *Policy {
	t.Helper()
	p, err := Builtin(name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// marked reads a marking of the USA policy.
func marked(t testing.TB, marking string) Label {
	t.Helper()
	l, err := usa(t).Parse(marking)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestDominatesFollowsClassCategoriesAndAudience(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"SECRET", "SECRET", true},
		{"SECRET", "SECRET//NOFORN", true},
		{"SECRET//NOFORN", "SECRET", true},
		{"SECRET", "SECRET//REL TO USA, GBR", true},
		{"SECRET//REL TO USA, GBR", "SECRET", false},
		{"SECRET//REL TO USA, GBR", "SECRET//REL TO USA, FVEY", true},
		{"SECRET//REL TO USA, FVEY", "SECRET//REL TO USA, GBR", false},
		{"TOP SECRET", "SECRET//SI", false},
		{"TOP SECRET//SI/TK", "SECRET//SI", true},
		{"TOP SECRET//SI", "TOP SECRET//SI-G ABCD", false},
		{"TOP SECRET//SI-G ABCD", "TOP SECRET//SI-G", true},
		{"SECRET", "TOP SECRET", false},
		{"UNCLASSIFIED", "SECRET", false},
		{"SECRET", "UNCLASSIFIED", true},
		{"UNCLASSIFIED", "UNCLASSIFIED//NOFORN", false},
		{"SECRET", "SECRET//ORCON", true},
		{"SECRET//REL TO USA, NATO", "SECRET//REL TO USA, GBR", false},
		{"//GBR SECRET", "SECRET", false},
		{"SECRET", "//GBR SECRET", true},
	} {
		if got := marked(t, c.a).Dominates(marked(t, c.b)); got != c.want {
			t.Errorf("%s dominates %s: got %t, want %t", c.a, c.b, got, c.want)
		}
	}
}

func TestUnmarkedIsOutsideTheOrder(t *testing.T) {
	var zero Label
	s := marked(t, "SECRET")
	if zero.Dominates(zero) || zero.Dominates(s) || s.Dominates(zero) || zero.Equivalent(zero) {
		t.Error("the zero Label takes part in the order")
	}
	if got := Join(zero, s); !got.IsZero() {
		t.Errorf("join with an unmarked label: got %q, want unmarked", got)
	}
	if got := Meet(s, zero); !got.IsZero() {
		t.Errorf("meet with an unmarked label: got %q, want unmarked", got)
	}
	if zero.Valid() == nil || zero.Banner() != "" || zero.Portion() != "" || zero.Rank() != -1 {
		t.Error("the zero Label is valid or has a marking")
	}
}

func TestLabelsOfTwoPoliciesNeverCompare(t *testing.T) {
	us := marked(t, "SECRET")
	gb, err := policy(t, "GBR").Parse("SECRET")
	if err != nil {
		t.Fatal(err)
	}
	if us.Dominates(gb) || gb.Dominates(us) || !Join(us, gb).IsZero() || !Meet(us, gb).IsZero() {
		t.Error("labels of two policies compare")
	}
}

func BenchmarkDominates(b *testing.B) {
	high, low := marked(b, "TOP SECRET//SI-G ABCD/TK//NOFORN"), marked(b, "SECRET//SI//REL TO USA, FVEY")
	b.ReportAllocs()
	for b.Loop() {
		if !high.Dominates(low) {
			b.Fatal("TOP SECRET does not dominate SECRET")
		}
	}
}

func BenchmarkJoin(b *testing.B) {
	x, y := marked(b, "TOP SECRET//SI-G ABCD/TK//ORCON/NOFORN"), marked(b, "SECRET//SI//REL TO USA, FVEY")
	b.ReportAllocs()
	for b.Loop() {
		if Join(x, y).IsZero() {
			b.Fatal("no join")
		}
	}
}

func BenchmarkParse(b *testing.B) {
	p := usa(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.Parse("TOP SECRET//SI-G ABCD/TK//ORCON/REL TO USA, FVEY"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkBanner(b *testing.B) {
	x := marked(b, "TOP SECRET//SI-G ABCD/TK//ORCON/REL TO USA, FVEY")
	b.ReportAllocs()
	for b.Loop() {
		if x.Banner() == "" {
			b.Fatal("no banner")
		}
	}
}
