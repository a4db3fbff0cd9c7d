package guard

import (
	"unicode"
	"unicode/utf8"
)

// alike are letters of other scripts that look like Latin ones, capital and small, with those that they look like. It covers what stands on
// keyboards of Cyrillic, Greek and Armenian, the scripts that are used for their shapes, and the Latin letters that are not in English, with strokes, hooks and tails, turned or reversed; letters of
// styles (bold, fullwidth, circled) are folded by NFKC before, or by styled.
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
		{"ⲂⲈⲎⲒⲔⲘⲚⲦⲨⲬⲌ", "BEHIKMNTYXZ"},
		{"ᎠᎥᎩᏀᏒᏔᎾᏆᏌᏂᏏᏧ", "DiyGRWOIUhbd"},
		{"ꓐꓑꓓꓔꓖꓗꓙꓚꓜꓝꓟꓠꓡꓢꓣꓦꓧꓪꓫꓬꓮꓰꓲꓳꓴ", "BPDTGKJCZFMNLSRVHWXYAEIOU"},
		{"ᗅᗩᗷᑕᗞᗪᗴᖴᕼᒍᒪᗰᑎᑭᑫᖇᔕᑌᐯᗯᘔ", "AABCDDEFHJLMNPqRSUVWZ"},
		{"ⵔⵏⵝⴹ", "OIXE"},
		{"ЯИШДҒғѴѵ", "RNWAFfVv"},
		{"ɢꜰꞯᴎ", "gfqn"},
		{"ƁɓƀɃƇƈȻȼƊɗɖƎɛƑƒƓɠǤǥɦƘƙƚȽɫɱƝƞŊŋƟɵƆɔƤƥɌɍʂƬƭƮʈɄʉƲʋɅⱲⱳƳƴɎɏƵƶȤȥ", "BbbBCcCcDddEeFfGgGghKklLlmNnNnOoOoPpRrsTtTtUuVvVWwYyYyZzZz"},
		{"ƂƃƋƌƐƜƫǝȠȡȴȵȶȷȺȾȿɀɆɇɈɉɋɐɕɘɜɝɟɥɬɭɯɰɲɳɹɺɻɼɽɾɿʄʇʌʍʎʐʑʛʝʞʠʮʯᴃᴈᴉᴌᴐᴑᴒᴓ", "BbDdEMteNdlntjATszEeJjqaceeejhllmmnnrrrrrrrjtvwyzzgjkqhhbeiloooo"},
		{"ᴙᴚᴝᴟᵬᵭᵮᵯᵰᵱᵲᵳᵴᵵᵶᵷᵹᵽᶀᶁᶂᶃᶄᶅᶆᶇᶈᶉᶊᶌᶍᶎᶏᶑᶒᶓᶔᶖᶗᶙẜẝỾỿↄⱠⱡⱢⱣⱤⱥⱦⱧⱨⱩⱪⱫⱬⱮⱯⱱⱴⱸⱹ", "rrumbdfmnprrstzggpbdfgklmnprsvxzadeeeioussYycLlLPRatHhKkZzMAvver"},
		{"ⱺⱻⱾⱿꜾꜿꝀꝁꝂꝃꝄꝅꝈꝉꝊꝋꝌꝍꝐꝑꝒꝓꝔꝕꝖꝗꝘꝙꝚꝛꝞꝟꝹꝺꝻꝼꝽꝾꝿꞀꞁꞂꞃꞄꞅꞆꞇꞍꞎꞐꞑꞒꞓꞔꞕꞖꞗꞘꞙꞠꞡꞢꞣꞤ", "oeSZCcKkKkKkLlOoOoPpPpPpQqQqRrVvDdFfGGgLlRrSsTtHlNnCcchBbFfGgKkN"},
		{"ꞥꞦꞧꞨꞩꞪꞫꞬꞭꞮꞰꞱꞲꞸꞹꟄꟅꟆꟇꟈꟉꟊꟷꟺꟻꟼꟽꟾꟿꬳꬴꬶꬷꬸꬹꬺꬻꬿꭆꭇꭉꭋꭌꭎꭒꭖꭗꭘꭙꭚꭨ𝼁𝼂𝼃𝼄𝼆𝼈𝼉𝼍𝼐𝼑𝼓𝼕𝼖", "nRrSsHEGLIKTJUuCSZDdSsimfpmimeeglllmnorrrrruuxxxxyrggklyrttkllrr"},
		{"𝼚𝼛𝼝𝼞", "iocs"},
	} {
		from, to := []rune(pair[0]), []rune(pair[1])
		for i, r := range from {
			m[r] = to[min(i, len(to)-1)]
		}
	}
	for small := 'ꭰ'; small <= 'ꮿ'; small++ { // Cherokee's small letters have the shapes of its capitals
		if r, ok := m[unicode.ToUpper(small)]; ok {
			m[small] = r
		}
	}
	return m
}()

// styled are letters that Unicode has as signs or marks and does not decompose, as the Latin ones that they are read as: white on black, the halves of
// flags, small letters above others. Anything else stays.
func styled(r rune) rune {
	const above, more = "aeioucdhmrtvx", "aaaacddggkllmnnrrsszabbeflopsuwaou"
	switch {
	case r >= 0x1F150 && r <= 0x1F169:
		return 'A' + r - 0x1F150
	case r >= 0x1F170 && r <= 0x1F189:
		return 'A' + r - 0x1F170
	case r >= 0x1F1E6 && r <= 0x1F1FF:
		return 'A' + r - 0x1F1E6
	case r >= 0x0363 && r < 0x0363+rune(len(above)):
		return rune(above[r-0x0363])
	case r >= 0x1DD3 && r < 0x1DD3+rune(len(more)):
		return rune(more[r-0x1DD3])
	}
	return r
}

// signs are characters that Unicode has as letters and that are seen as apostrophes, colons, exclamation marks and the like: they split a word as those do.
var signs = &unicode.RangeTable{R16: []unicode.Range16{{0x01C2, 0x01C3, 1}, {0x02B9, 0x02DF, 1}, {0x02E5, 0x02FF, 1}, {0xA700, 0xA721, 1}, {0xA788, 0xA78C, 1}}}

// letter is r as a search sees it: without marks, small, and as the Latin letter that it looks like or the digit of ASCII that it is.
func letter(r rune) rune {
	if r < utf8.RuneSelf {
		if r >= 'A' && r <= 'Z' {
			r += 'a' - 'A'
		}
		return r
	}
	if a, ok := alike[r]; ok {
		r = a
	}
	if unicode.IsDigit(r) {
		return digit(r)
	}
	return unicode.ToLower(r)
}

// digit is a digit of any script as that of ASCII. Unicode has those of each script together, from nought on.
func digit(r rune) rune {
	for _, of := range unicode.Nd.R16 {
		if r >= rune(of.Lo) && r <= rune(of.Hi) {
			return '0' + (r-rune(of.Lo))%10
		}
	}
	for _, of := range unicode.Nd.R32 {
		if r >= rune(of.Lo) && r <= rune(of.Hi) {
			return '0' + (r-rune(of.Lo))%10
		}
	}
	return r
}
