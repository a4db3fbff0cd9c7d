package layers

import (
	"fmt"
	"path"
	"strconv"
	"strings"
	"unicode/utf8"
)

// who finds out whom the program runs as.
func (u *unpacker) who(user string) (t Told, err error) {
	user, group, hasGroup := strings.Cut(user, ":")
	if user == "" {
		user = "0"
	}
	uid, err := strconv.ParseUint(user, 10, 31)
	numeric := err == nil
	t.UID, t.Home = uint32(uid), "/"
	found, name := false, user
	for _, f := range u.lines(u.passwd, "etc/passwd", 7) {
		if f[0] == user && !numeric || numeric && f[2] == strconv.FormatUint(uid, 10) {
			uid, err1 := strconv.ParseUint(f[2], 10, 31)
			gid, err2 := strconv.ParseUint(f[3], 10, 31)
			if err1 == nil && err2 == nil {
				t.UID, t.GID, name, found = uint32(uid), uint32(gid), f[0], true
				if strings.HasPrefix(f[5], "/") && utf8.ValidString(f[5]) {
					t.Home = f[5]
				}
				break
			}
		}
	}
	if !found && !numeric {
		return t, fmt.Errorf("the image has no user %.64q", user)
	}
	groups := u.lines(u.group, "etc/group", 4)
	if hasGroup {
		gid, err := strconv.ParseUint(group, 10, 31)
		ok := err == nil
		for _, f := range groups {
			if n, err := strconv.ParseUint(f[2], 10, 31); !ok && f[0] == group && err == nil {
				gid, ok = n, true
			}
		}
		if !ok {
			return t, fmt.Errorf("the image has no group %.64q", group)
		}
		t.GID = uint32(gid)
		return t, nil
	}
	for _, f := range groups {
		for m := range strings.SplitSeq(f[3], ",") {
			if n, err := strconv.ParseUint(f[2], 10, 31); err == nil && m == name && found && len(t.Groups) < 64 {
				t.Groups = append(t.Groups, uint32(n))
			}
		}
	}
	return t, nil
}

// lines are those of /etc/passwd or /etc/group that have all their fields, where the file that was kept is the one that is there.
func (u *unpacker) lines(a accounts, name string, fields int) (all [][]string) {
	dir, base := path.Split(name)
	etc := u.root.children[path.Clean(dir)]
	if a.of == nil || etc == nil || !etc.isDir() || etc.children[base] != a.of {
		return nil
	}
	for l := range strings.SplitSeq(string(a.b), "\n") {
		if f := strings.Split(l, ":"); len(f) == fields {
			all = append(all, f)
		}
	}
	return all
}
