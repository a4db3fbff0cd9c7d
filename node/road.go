package node

import (
	"cmp"
	"crypto/rand"
	"errors"
	"net"
	"path/filepath"
	"runtime"

	"redoubt"
	"redoubt/carry/diode"
	"redoubt/estate"
)

// roadConfig is the one-way road between the halves: whoever knows the key may put datagrams on it. Where both halves run here it is kept as it was
// chosen once; where they run apart the estate says where it is, and its key comes by a file that a person carries to both.
type roadConfig struct {
	Address string `json:"address"` // UDP, where the high half listens
	Key     []byte `json:"key"`

	pace int64 // bits a second
}

const roadFile = "road.json"

// The paces of a road that the estate gives none. Both ends of the quicker are this machine, whose kernel holds for the high half what comes while that
// does not run, and on whose processors both run.
const (
	usualPace   = 800_000_000
	quickPace   = 1_000_000_000 // for each processor,
	mostQuickly = 4             // of so many
	roomForIt   = 64 << 20      // bytes that the kernel holds
)

// fitSide refuses a half where the estate has both run in one, and both where it has them run apart.
func fitSide(o Options, e *estate.Estate, declared estate.Node) error {
	road, name := declared.Guard.Road, string(declared.Name)
	refuse := func(why, hint string) error {
		return &redoubt.Error{Op: "node.openGuard", Object: name, Kind: redoubt.Invalid, Err: errors.New(why), Hint: hint}
	}
	switch {
	case o.Side == "" && road.Apart():
		return refuse("the estate has its halves run apart", "redoubt serve "+name+" --half low on one machine, and --half high on the other")
	case o.Side == "":
		return nil
	case o.Side != HalfLow && o.Side != HalfHigh:
		return refuse("a half is low or high", "")
	case !road.Apart():
		return refuse("the estate has both its halves run on one machine", "add road: {listen: ADDRESS:PORT} to the guard in the estate, or leave out --half")
	case len(o.RoadKey) == 0:
		return refuse("a half that runs by itself needs the road's key", "redoubt diode key FILE makes it, once; carry it to both machines, and name it with --road-key")
	}
	return nil
}

// openRoad takes the road that the estate gives, with the key that was brought; or chooses one within this machine, once.
func (g *guardSide) openRoad(key []byte) error {
	declared := g.declared.Guard.Road
	if declared.Apart() {
		g.road = roadConfig{Address: declared.Listen, Key: key, pace: cmp.Or(declared.Pace, usualPace)}
		return nil
	}
	pace := int64(usualPace)
	if diode.ReceiveBuffer() >= roomForIt {
		pace = quickPace * int64(min(mostQuickly, runtime.GOMAXPROCS(0)))
	}
	path := filepath.Join(g.dir, roadFile)
	err := readJSON(path, &g.road)
	g.road.pace = cmp.Or(declared.Pace, pace)
	if !errors.Is(err, redoubt.NotFound) {
		return err
	}
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return err
	}
	g.road.Address, g.road.Key = c.LocalAddr().String(), make([]byte, diode.KeyBytes)
	if err := c.Close(); err != nil {
		return err
	}
	if _, err := rand.Read(g.road.Key); err != nil {
		return err
	}
	return writeJSON(path, g.road)
}
