package label

import "testing"

// Rule numbers are those of ODNI ISM V10.
func TestRollUpFollowsISM(t *testing.T) {
	for _, c := range []struct {
		rule     string
		portions []string
		want     string
	}{
		{"00056 classification is the highest", []string{"U", "C"}, "CONFIDENTIAL"},
		{"00058 classification is the highest", []string{"U", "S", "C"}, "SECRET"},
		{"00059 classification is the highest", []string{"S", "TS", "U"}, "TOP SECRET"},
		{"00060 SCI is the union", []string{"S//SI//NF", "TS//TK//NF"}, "TOP SECRET//SI/TK//NOFORN"},
		{"00061 compartments are the union", []string{"TS//SI-G ABCD//NF", "TS//SI-G EFGH/TK//NF"}, "TOP SECRET//SI-G ABCD EFGH/TK//NOFORN"},
		{"00062 AEA is the union", []string{"S//RD//NF", "S//FRD//NF"}, "SECRET//RD/FRD//NOFORN"},
		{"00063 AEA is the union", []string{"S//RD-CNWDI//NF", "S//NF"}, "SECRET//RD-CNWDI//NOFORN"},
		{"00067 ORCON is the union", []string{"S//OC/NF", "S//NF"}, "SECRET//ORCON/NOFORN"},
		{"00068 IMCON is the union", []string{"S//IMC/NF", "S//NF"}, "SECRET//IMCON/NOFORN"},
		{"00069 NOFORN is the union", []string{"S//NF", "S"}, "SECRET//NOFORN"},
		{"00070 PROPIN is the union", []string{"S//PR/NF", "U"}, "SECRET//NOFORN/PROPIN"},
		{"00071 FISA is the union", []string{"S//NF/FISA", "U"}, "SECRET//NOFORN/FISA"},
		{"00165 RSEN is the union", []string{"S//RS/NF", "TS//NF"}, "TOP SECRET//RSEN/NOFORN"},
		{"00033 NOFORN removes REL", []string{"S//NF", "S//REL TO USA, GBR"}, "SECRET//NOFORN"},
		{"00033 NOFORN removes EYES", []string{"S//USA/GBR EYES", "S//NF"}, "SECRET//NOFORN"},
		{"00088 REL only if every classified portion has it", []string{"S//REL TO USA, GBR", "S"}, "SECRET"},
		{"00088 unclassified portions do not count", []string{"S//REL TO USA, GBR", "U", "U//FOUO"}, "SECRET//REL TO USA, GBR"},
		{"00088 the list is the intersection", []string{"S//REL TO USA, AUS, GBR", "S//REL TO USA, CAN, GBR"}, "SECRET//REL TO USA, GBR"},
		{"00318 groups are decomposed first", []string{"S//REL TO USA, FVEY", "S//REL TO USA, TEYE"}, "SECRET//REL TO USA, AUS, GBR"},
		{"00318 an opaque group is no member list", []string{"S//REL TO USA, NATO", "S//REL TO USA, GBR"}, "SECRET//NOFORN"},
		{"00318 no country in common", []string{"S//REL TO USA, AUS", "S//REL TO USA, GBR"}, "SECRET//NOFORN"},
		{"00132 RELIDO only if all have it", []string{"S//RELIDO", "S"}, "SECRET"},
		{"00132 RELIDO only if all have it", []string{"S//RELIDO", "TS//RELIDO"}, "TOP SECRET//RELIDO"},
		{"00132 RELIDO yields to NOFORN", []string{"S//REL TO USA, AUS/RELIDO", "S//REL TO USA, GBR/RELIDO"}, "SECRET//NOFORN"},
		{"00066 FOUO while UNCLASSIFIED", []string{"U//FOUO", "U"}, "UNCLASSIFIED//FOUO"},
		{"00066 FOUO goes when classified", []string{"U//FOUO", "S"}, "SECRET"},
		{"00049 HCS forces NOFORN", []string{"TS//HCS//NF", "TS//REL TO USA, GBR"}, "TOP SECRET//HCS//NOFORN"},
		{"00313 EXDIS forces NOFORN", []string{"S//NF//XD", "S//REL TO USA, GBR"}, "SECRET//NOFORN//EXDIS"},
		{"00314 NODIS forces NOFORN", []string{"S//NF//ND", "S//REL TO USA, GBR"}, "SECRET//NOFORN//NODIS"},
		{"DISPLAY ONLY only if all have it", []string{"S//DISPLAY ONLY AFG, IRQ", "S//DISPLAY ONLY IRQ"}, "SECRET//DISPLAY ONLY IRQ"},
		{"ORCON says more than ORCON-USGOV", []string{"S//OC-USGOV/NF", "S//OC/NF"}, "SECRET//ORCON/NOFORN"},
		{"another owner becomes FGI", []string{"//GBR S", "S"}, "SECRET//FGI GBR"},
		{"another owner alone stays", []string{"//GBR S", "//GBR C", "U"}, "//GBR SECRET"},
		{"two others share the reader USA", []string{"//GBR S", "//FRA S"}, "SECRET//FGI FRA GBR"},
		{"a concealed source conceals all", []string{"S//FGI//NF", "S//FGI GBR//NF"}, "SECRET//FGI//NOFORN"},
		{"RESTRICTED is held as CONFIDENTIAL", []string{"//DEU R", "U//NF"}, "CONFIDENTIAL//FGI DEU//NOFORN"},
		{"JOINT becomes FGI in own material", []string{"//JOINT S CAN GBR USA", "S//REL TO USA, GBR"}, "SECRET//FGI CAN GBR//REL TO USA, GBR"},
		{"several owners without a common reader", []string{"S//AUDIENCE GBR", "//FRA S//AUDIENCE FRA"}, "SECRET//FGI FRA//AUDIENCE NONE"},
	} {
		var portions []Label
		for _, s := range c.portions {
			portions = append(portions, marked(t, s))
		}
		if got := RollUp(portions).Banner(); got != c.want {
			t.Errorf("%s: %v: got %s, want %s", c.rule, c.portions, got, c.want)
		}
	}
}

func TestNOFORNRemovesREL(t *testing.T) {
	got := Join(marked(t, "SECRET//NOFORN"), marked(t, "SECRET//REL TO USA, FVEY"))
	if want := marked(t, "SECRET//NOFORN"); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestRollUpOfNothingIsUnmarked(t *testing.T) {
	if got := RollUp(nil); !got.IsZero() {
		t.Errorf("got %s, want unmarked", got)
	}
	if got := RollUp([]Label{marked(t, "S"), {}}); !got.IsZero() {
		t.Errorf("with an unmarked portion: got %s, want unmarked", got)
	}
}

func TestHandlingMarksNeverDecide(t *testing.T) {
	for _, c := range [][2]string{
		{"UNCLASSIFIED", "UNCLASSIFIED//FOUO"}, {"SECRET", "SECRET//ORCON/IMCON/PROPIN/RELIDO/FISA//LIMDIS"},
		{"SECRET", "SECRET//NOFORN"}, {"SECRET", "SECRET//FGI GBR"}, {"SECRET", "SECRET//DISPLAY ONLY AFG"},
		{"SECRET", "SECRET//NODIS"}, {"UNCLASSIFIED", "UNCLASSIFIED//CUI//SP-CTI"},
	} {
		if a, b := marked(t, c[0]), marked(t, c[1]); !a.Equivalent(b) {
			t.Errorf("%s and %s are not one point", a, b)
		}
	}
}

func TestPortionRELStandsForTheBannersList(t *testing.T) {
	banner := marked(t, "SECRET//REL TO USA, GBR")
	got, err := usa(t).ParsePortion("(S//REL)", banner)
	if err != nil || got != banner {
		t.Errorf("got %s, %v, want %s", got, err, banner)
	}
	if _, err := usa(t).ParsePortion("(S//REL)", marked(t, "SECRET")); err == nil {
		t.Error("REL without a list was read under a banner that has none")
	}
	if _, err := usa(t).ParsePortion("(S//REL)", Label{}); err == nil {
		t.Error("REL without a list was read under no banner")
	}
}
