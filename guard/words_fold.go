package guard

import (
	"unicode"
)

// Invisible reports whether r is a character that shows nothing: format characters, joiners, fillers, variation selectors and tags. Marks of
// direction are among them.
func Invisible(r rune) bool {
	return unicode.Is(invisible, r) || unicode.Is(unicode.Bidi_Control, r)
}

// invisible are the characters that Unicode has renderers show nothing of (Default_Ignorable_Code_Point), and the annotation anchors.
var invisible = &unicode.RangeTable{
	R16: []unicode.Range16{
		{0x00AD, 0x00AD, 1}, {0x034F, 0x034F, 1}, {0x061C, 0x061C, 1}, {0x115F, 0x1160, 1}, {0x17B4, 0x17B5, 1}, {0x180B, 0x180F, 1},
		{0x200B, 0x200F, 1}, {0x202A, 0x202E, 1}, {0x2060, 0x206F, 1}, {0x2800, 0x2800, 1}, {0x3164, 0x3164, 1}, {0xFE00, 0xFE0F, 1}, {0xFEFF, 0xFEFF, 1}, {0xFFA0, 0xFFA0, 1},
		{0xFFF0, 0xFFFB, 1},
	},
	R32:         []unicode.Range32{{0x1BCA0, 0x1BCA3, 1}, {0x1D173, 0x1D17A, 1}, {0xE0000, 0xE0FFF, 1}},
	LatinOffset: 1,
}

// alike are letters of other scripts that look like Latin ones, capital and small, with those that they look like. It covers what stands on
// keyboards of Cyrillic, Greek and Armenian and the Latin letters that are not in English; letters of styles (bold, fullwidth, circled) are
// folded by NFKC before.
var alike = func() map[rune]rune {
	m := map[rune]rune{}
	for _, pair := range [][2]string{
		{"АВЕЅІЈКМНОРСТУХԌԚԜҮҺӀЗ", "ABESIJKMHOPCTYXGQWYHI3"},
		{"аеѕіјорсухһԁԛԝӏкмтвнгпиьԍүӕ", "aesijopcyxhdqwlkmtbhrnubgya"},
		{"ΑΒΕΖΗΙΚΜΝΟΡΤΥΧϹϿ", "ABEZHIKMNOPTYXCC"},
		{"ανοικρτυχγηϲϳωεσβ", "avoikptuxyncjweob"},
		{"ՕՍոսցհյ", "OUnughj"},
		{"ıɩɪƖǀɑɡɴʀʙʜʟʏᴀᴄᴅᴇᴊᴋᴍᴏᴘᴛᴜᴠᴡᴢꜱ", "iiiIlagnrbhlyacdejkmoptuvwzs"},
		{"ØøĐđŁłĦħŦŧƗɨ", "OoDdLlHhTtIi"},
		{"ᎪᎬᎻᎫᏦᏞᎷᏢᎡᏚᎢᏙᎳᏃᏴᏟ", "AEHJKLMPRSTVWZBC"},
		{"ⲞⲟⲤⲥⲀⲢⲣ", "OoCcAPp"},
	} {
		from, to := []rune(pair[0]), []rune(pair[1])
		for i, r := range from {
			m[r] = to[min(i, len(to)-1)]
		}
	}
	return m
}()

// letter is r as a search sees it: without marks, small, and as the Latin letter that it looks like.
func letter(r rune) rune {
	if a, ok := alike[r]; ok {
		r = a
	}
	return unicode.ToLower(r)
}
