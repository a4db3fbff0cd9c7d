package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"time"
)

// pairEstate is a home and a device of it, an exercise like the built-in one. Clients of both are on loopback, so TLS is off for them;
// what goes between the two is as it always is.
const pairEstate = `redoubt: 1
name: bench
exercise: true
policy: USA
nodes:
  - name: home
    range: {floor: UNCLASSIFIED, ceiling: SECRET}
    s3: {listen: "127.0.0.1:0", tls: false}
    api: {listen: "%s"}
    peers: {listen: "%s"}
    buckets: [bench]
  - name: outpost
    kind: device
    home: home
    range: {floor: UNCLASSIFIED, ceiling: SECRET}
    lease: 72h
    s3: {listen: "127.0.0.1:0", tls: false}
    buckets: [bench]
people:
  - {name: bencher, clearance: SECRET, nation: USA, roles: [analyst], expires: 2099-12-31}
  - {name: officer, clearance: SECRET, nation: USA, roles: [officer], expires: 2099-12-31}
  - {name: officer-2, clearance: SECRET, nation: USA, roles: [officer], expires: 2099-12-31}
`

// The nodes of a pair, by name.
const home, outpost = "home", "outpost"

// pair is a home and its device as processes of their own, enrolled. One goroutine uses it.
type pair struct {
	bin, dir, state, estate string
	namespaces              map[string]string   // by node; none: this one
	prefix                  map[string][]string // what a node is run under, beside its namespace
	nodes                   map[string]*member
	lookEvery               time.Duration // how often a node is asked whether something has arrived
}

// member is one node of a pair.
type member struct {
	server
	process  *exec.Cmd
	lifeline *os.File // the node ends when this does
	log      bytes.Buffer
	peak     float64 // MiB, of the processes that ended
}

// newPair brings both up, over a road on which nothing is lost or waits, and takes them to where they are in step. api and
// peers are the addresses where the device meets its home.
func newPair(ctx context.Context, o options, dir, api, peers string, namespaces map[string]string, prefix map[string][]string) (*pair, error) {
	bin, err := filepath.Abs(o.redoubt)
	if err != nil {
		return nil, err
	}
	p := &pair{bin: bin, dir: dir, state: filepath.Join(dir, "state"), estate: filepath.Join(dir, "pair.yaml"), namespaces: namespaces,
		prefix: prefix, nodes: map[string]*member{home: {server: server{stored: map[string][]int{}}}, outpost: {}}, lookEvery: 5 * time.Millisecond}
	text := fmt.Sprintf(pairEstate, api, peers)
	if err := os.WriteFile(p.estate, []byte(text), 0o600); err != nil {
		return nil, err
	}
	if err := p.enrol(ctx); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

func (p *pair) enrol(ctx context.Context) error {
	if err := p.start(ctx, home, "--estate", p.estate); err != nil {
		return err
	}
	invitation := filepath.Join(p.dir, "invitation.json")
	if _, err := p.call(ctx, home, "device", "enrol", outpost, "--to", invitation, "--as", "officer@"+home); err != nil {
		return err
	}
	if err := p.start(ctx, outpost, "--invitation", invitation); err != nil {
		return err
	}
	return p.inStep(ctx, "before")
}

// inStep puts a little at each end and waits until the other has it.
func (p *pair) inStep(ctx context.Context, key string) error {
	for from, to := range map[string]string{home: outpost, outpost: home} {
		path := "/bench/" + key + "-" + from
		version, err := p.put(from, path, []byte(key), "")
		if err == nil {
			_, err = p.await(ctx, to, []arrived{{path: path, version: version}})
		}
		if err != nil {
			return fmt.Errorf("from %s to %s: %w", from, to, err)
		}
	}
	return nil
}

// command runs the binary where a node is.
func (p *pair) command(ctx context.Context, node string, args ...string) *exec.Cmd {
	line := append([]string{p.bin}, append(args, "--state", p.state)...)
	line = append(append([]string(nil), p.prefix[node]...), line...)
	if ns := p.namespaces[node]; ns != "" {
		line = append([]string{"ip", "netns", "exec", ns}, line...)
	}
	return exec.CommandContext(ctx, line[0], line[1:]...)
}

func (p *pair) call(ctx context.Context, node string, args ...string) ([]byte, error) {
	return said(p.command(ctx, node, args...), args[0])
}

// said runs one of the binary's commands and gives what it printed; where it failed the error has its words.
func said(c *exec.Cmd, command string) ([]byte, error) {
	var talk bytes.Buffer
	c.Stderr = &talk
	out, err := c.Output()
	if err != nil {
		err = fmt.Errorf("redoubt %s: %w: %s", command, err, talk.Bytes())
	}
	return out, err
}

// start runs a node and waits until it is ready. It ends with this process.
func (p *pair) start(ctx context.Context, node string, args ...string) error {
	m := p.nodes[node]
	ready, readyTo, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ready.Close()
	life, lifeline, err := os.Pipe()
	if err != nil {
		return errors.Join(err, readyTo.Close())
	}
	m.log.Reset()
	m.process = p.command(context.Background(), node, append([]string{"serve", node}, args...)...)
	m.process.Stderr, m.process.ExtraFiles, m.lifeline = &m.log, []*os.File{readyTo, life}, lifeline
	m.process.Env = append(os.Environ(), "REDOUBT_READY_FD=3", "REDOUBT_LIFELINE_FD=4")
	err = m.process.Start()
	readyTo.Close()
	life.Close()
	if err != nil {
		return errors.Join(err, lifeline.Close())
	}
	m.pid = m.process.Process.Pid
	var said struct {
		Runtime struct {
			S3URL string `json:"s3_url"`
		} `json:"runtime"`
		Error string `json:"error"`
	}
	if err := ready.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		return err
	}
	if err := json.NewDecoder(ready).Decode(&said); err != nil || said.Error != "" {
		return fmt.Errorf("%s did not start: %w %s: %s", node, err, said.Error, m.log.Bytes())
	}
	u, err := url.Parse(said.Runtime.S3URL)
	if err != nil {
		return err
	}
	m.name, m.addr, m.namespace = node, u.Host, p.namespaces[node]
	if m.access != "" {
		return nil
	}
	out, err := p.call(ctx, node, "env", "bencher@"+node, "--label", "SECRET")
	if err != nil {
		return err
	}
	vars := exports(string(out))
	m.access, m.secret, m.region = vars["AWS_ACCESS_KEY_ID"], vars["AWS_SECRET_ACCESS_KEY"], vars["AWS_REGION"]
	return nil
}

// end stops a node by a signal and waits for it.
func (p *pair) end(node string, signal syscall.Signal) {
	m := p.nodes[node]
	if m.process == nil || m.process.ProcessState != nil {
		return
	}
	m.peak = max(m.peak, m.peakMiB())
	_ = m.process.Process.Signal(signal) // one that has ended is waited for all the same
	_ = m.process.Wait()
	m.lifeline.Close()
}

// close stops both.
func (p *pair) close() {
	for _, node := range []string{outpost, home} {
		p.end(node, syscall.SIGTERM)
	}
}

// peakMiB of a node is that of all the processes that it was.
func (p *pair) peakMiB(node string) float64 { return max(p.nodes[node].peak, p.nodes[node].peakMiB()) }

// put stores an object at a node and gives the version that it became.
func (p *pair) put(node, path string, content []byte, precedence string) (version string, err error) {
	c, err := p.nodes[node].dial()
	if err != nil {
		return "", err
	}
	defer c.close()
	c.precedence = precedence
	err = c.do("PUT", path, "", content, nil)
	return c.version, err
}

// arrived is a version that is to arrive, and when it was seen there.
type arrived struct {
	path, version string // no version: any
	at            time.Time
}

func (a arrived) query() string {
	if a.version == "" {
		return ""
	}
	return "versionId=" + url.QueryEscape(a.version)
}

// await looks at a node until it shows every version, and says when it first showed each. A node that is down is asked again.
func (p *pair) await(ctx context.Context, node string, all []arrived) ([]arrived, error) {
	var c *client
	defer func() {
		if c != nil {
			c.close()
		}
	}()
	for i := 0; i < len(all); {
		if ctx.Err() != nil {
			return all, fmt.Errorf("%d of %d versions arrived at %s: %w", i, len(all), node, ctx.Err())
		}
		err := error(nil)
		if c == nil {
			c, err = p.nodes[node].dial()
		}
		if err == nil {
			c.accept = 404
			err = c.do("HEAD", all[i].path, all[i].query(), nil, nil)
		}
		if err == nil && c.status == 200 {
			all[i].at = time.Now()
			i++
			continue
		}
		if err != nil && c != nil {
			c.close()
			c = nil
		}
		select {
		case <-time.After(p.lookEvery):
		case <-ctx.Done():
		}
	}
	return all, nil
}

// shown counts the versions that a node shows.
func (p *pair) shown(node string, all []arrived) (n int, err error) {
	c, err := p.nodes[node].dial()
	if err != nil {
		return 0, err
	}
	defer c.close()
	c.accept = 404
	for _, a := range all {
		if err := c.do("HEAD", a.path, a.query(), nil, nil); err != nil {
			return n, err
		}
		if c.status == 200 {
			n++
		}
	}
	return n, nil
}

// get reads a version at a node.
func (p *pair) get(node string, of arrived) ([]byte, error) {
	c, err := p.nodes[node].dial()
	if err != nil {
		return nil, err
	}
	defer c.close()
	var body bytes.Buffer
	c.body = &body
	err = c.do("GET", of.path, of.query(), nil, nil)
	return body.Bytes(), err
}

// complete waits until a node lists so many objects under a prefix.
func (p *pair) complete(ctx context.Context, node, prefix string, want int) error {
	for {
		got, err := listed(&p.nodes[node].server, "bench", prefix)
		if err != nil || got >= want {
			return err
		}
		select {
		case <-time.After(p.lookEvery):
		case <-ctx.Done():
			return fmt.Errorf("%s lists %d of %d objects: %w", node, got, want, ctx.Err())
		}
	}
}

// listed is how many objects under a prefix a node lists.
func listed(s *server, bucket, prefix string) (n int, err error) {
	c, err := s.dial()
	if err != nil {
		return 0, err
	}
	defer c.close()
	for after := ""; ; {
		var page bytes.Buffer
		c.body = &page
		if err := c.do("GET", "/"+bucket, "list-type=2&max-keys=1000&prefix="+prefix+"%2F&start-after="+escapeSlash(after), nil, nil); err != nil {
			return n, err
		}
		keys := listedKey.FindAllSubmatch(page.Bytes(), -1)
		if n += len(keys); len(keys) == 0 {
			return n, nil
		}
		after = string(keys[len(keys)-1][1])
	}
}

var listedKey = regexp.MustCompile("<Key>([^<]*)</Key>")
