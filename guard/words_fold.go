package guard

import (
	"unicode"
)

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
