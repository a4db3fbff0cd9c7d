package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// server is one that is being measured.
type server struct {
	name, addr, access, secret, region string
	namespace                          string // of the network that it is in; empty: this one
	pid                                int
	stop                               func()
	stored                             map[string][]int // by prefix: how many objects each connection stored
}

type starter func(ctx context.Context, o options, dir string) (*server, error)

// clockTicks is USER_HZ, which is 100 on every Linux that we build for.
const clockTicks = 100

// cpu is the processor time that the server has used, user and system.
func (s *server) cpu() time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	var ticks int64
	for _, i := range []int{11, 12} { // utime and stime, counted from the state field (proc(5))
		n, _ := strconv.ParseInt(fields[i], 10, 64)
		ticks += n
	}
	return time.Duration(ticks) * time.Second / clockTicks
}

// peakMiB is the server's peak resident memory.
func (s *server) peakMiB() float64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, _ := strconv.ParseFloat(strings.Fields(v)[0], 64)
			return kb / 1024
		}
	}
	return 0
}

const benchEstate = `redoubt: 1
name: bench
exercise: true
policy: USA
nodes:
  - name: bench
    range: {floor: UNCLASSIFIED, ceiling: SECRET}
    s3: {listen: "127.0.0.1:0", tls: false}
    buckets: [bench]
people:
  - {name: bencher, clearance: SECRET, nation: USA, roles: [analyst], expires: 2099-12-31}
  - {name: officer, clearance: SECRET, nation: USA, roles: [officer], expires: 2099-12-31}
  - {name: officer-2, clearance: SECRET, nation: USA, roles: [officer], expires: 2099-12-31}
`

// startRedoubt brings up a one-enclave estate, with TLS off as the peers have it; everything else is as it always is.
func startRedoubt(ctx context.Context, o options, dir string) (*server, error) {
	bin, err := filepath.Abs(o.redoubt)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "bench.yaml")
	if err := os.WriteFile(file, []byte(benchEstate), 0o600); err != nil {
		return nil, err
	}
	state := filepath.Join(dir, "state")
	call := func(args ...string) ([]byte, error) {
		line := append(append(append([]string(nil), o.prefix...), bin), append(args, "--state", state)...)
		return said(exec.CommandContext(ctx, line[0], line[1:]...), args[0])
	}
	if _, err := call("up", file, "--detach"); err != nil {
		return nil, err
	}
	s := &server{name: "redoubt", stored: map[string][]int{}, stop: func() {
		down := exec.Command(bin, "down", "--state", state)
		down.Run()
	}}
	var status struct {
		Nodes []struct {
			PID   int    `json:"pid"`
			S3URL string `json:"s3_url"`
		} `json:"nodes"`
	}
	out, err := call("status", "--json")
	if err == nil {
		err = json.Unmarshal(out, &status)
	}
	if err == nil && len(status.Nodes) != 1 {
		err = errors.New("the estate has no node")
	}
	if err == nil {
		out, err = call("env", "bencher@bench", "--label", "SECRET")
	}
	if err != nil {
		s.stop()
		return nil, err
	}
	s.pid = status.Nodes[0].PID
	u, err := url.Parse(status.Nodes[0].S3URL)
	if err != nil {
		s.stop()
		return nil, err
	}
	s.addr = u.Host
	vars := exports(string(out))
	s.access, s.secret, s.region = vars["AWS_ACCESS_KEY_ID"], vars["AWS_SECRET_ACCESS_KEY"], vars["AWS_REGION"]
	return s, nil
}

func startVersitygw(ctx context.Context, o options, dir string) (*server, error) {
	data := filepath.Join(dir, "data")
	if err := os.Mkdir(data, 0o755); err != nil {
		return nil, err
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	return startPeer(ctx, "versitygw", addr, exec.Command(o.versitygw, "--access", peerAccess, "--secret", peerSecret, "--region", "us-east-1",
		"--port", addr, "--keep-alive", "--quiet", "posix", data))
}

func startMinIO(ctx context.Context, o options, dir string) (*server, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(o.minio, "server", "--quiet", "--address", addr, filepath.Join(dir, "data"))
	cmd.Env = append(os.Environ(), "MINIO_ROOT_USER="+peerAccess, "MINIO_ROOT_PASSWORD="+peerSecret, "MINIO_UPDATE=off", "MINIO_BROWSER=off")
	return startPeer(ctx, "minio", addr, cmd)
}

const peerAccess, peerSecret = "benchbenchbench", "benchbenchbenchbench"

// startPeer runs a peer's process and waits until it has made a bucket.
func startPeer(ctx context.Context, name, addr string, cmd *exec.Cmd) (*server, error) {
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &server{name: name, addr: addr, access: peerAccess, secret: peerSecret, region: "us-east-1", pid: cmd.Process.Pid, stored: map[string][]int{},
		stop: func() { cmd.Process.Signal(syscall.SIGTERM); cmd.Wait() }}
	var last error
	for range 150 {
		if ctx.Err() != nil {
			break
		}
		c, err := s.dial()
		if err == nil {
			err = c.do("PUT", "/bench", "", nil, nil)
			c.close()
		}
		if last = err; err == nil {
			return s, nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	s.stop()
	return nil, fmt.Errorf("%s did not start: %v: %s", name, last, log.Bytes())
}

func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}
