package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/netip"
	"net/url"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"redoubt"
	"redoubt/carry/diode"
	"redoubt/node"
	"redoubt/sandbox"
)

// runHalf is one half of a guard's raise: a process that its guard starts, told what it needs by a line on its standard input, and that ends when
// that closes. It is no command for people.
func runHalf(in io.Reader, errw io.Writer) int {
	log := slog.New(slog.NewJSONHandler(errw, nil))
	r := bufio.NewReaderSize(in, 64<<10)
	line, err := r.ReadBytes('\n')
	var c node.HalfConfig
	if err == nil {
		err = json.Unmarshal(line, &c)
	}
	clear(line)
	if err != nil {
		log.Error("a half of a raise was started without being told what it is")
		return exitUsage
	}
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(c.Processors(runtime.GOMAXPROCS(0), diode.ReceiveBuffer()))
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	go func() { // ends with the process: a read of a pipe cannot be waited out
		_, _ = io.Copy(io.Discard, r)
		stop()
	}()
	// The two halves run as one user on one machine: confined, neither opens the other's folder, nor traces it or the guard that started both.
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		log.Error("the half has no folder", slog.String("why", err.Error()))
		return exitFailed
	}
	if err := sandbox.Confine([]string{c.Dir}, resolvers(c.Card.API)); err != nil {
		log.Warn("this half is not walled off from the other", slog.String("kind", redoubt.KindOf(err).Error()))
	}
	if err := node.RunHalf(ctx, c, log); err != nil {
		log.Error("the half ended", slog.String("kind", redoubt.KindOf(err).Error()))
		return exitFailed
	}
	return 0
}

// resolvers are the files by which the name in a URL is looked up; none where it is an address.
func resolvers(at string) []string {
	u, err := url.Parse(at)
	if err != nil {
		return nil
	}
	if _, err := netip.ParseAddr(u.Hostname()); err == nil {
		return nil
	}
	return []string{"/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/gai.conf"}
}
