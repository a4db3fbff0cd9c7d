package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"time"
)

// serve answers HTTP on $PORT of an address, or of all: what it is asked, of a file below /in its content, and some more.
func serve(host string) error {
	fmt.Println("serving")
	m := http.NewServeMux()
	m.HandleFunc("/die", func(http.ResponseWriter, *http.Request) { os.Exit(3) })
	m.HandleFunc("/up", func(http.ResponseWriter, *http.Request) {})
	m.HandleFunc("/pid", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, os.Getpid()) })
	m.HandleFunc("/say", func(_ http.ResponseWriter, r *http.Request) { fmt.Println(r.URL.RawQuery) })
	m.HandleFunc("/echo", echo)
	m.HandleFunc("/kind/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, plainly(kindOf(r.URL.Path[len("/kind"):])))
	})
	m.HandleFunc("/write/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, os.WriteFile(r.URL.Path[len("/write"):], []byte("x"), 0o644))
	})
	m.HandleFunc("/dial/{network}/{to}", func(w http.ResponseWriter, r *http.Request) {
		c, err := net.DialTimeout(r.PathValue("network"), r.PathValue("to"), 2*time.Second)
		if err == nil {
			_, err = c.Write([]byte("x"))
			c.Close()
		}
		fmt.Fprint(w, err)
	})
	m.HandleFunc("/ask/{method}/{socket}/{path}", func(w http.ResponseWriter, r *http.Request) {
		h := &http.Transport{Protocols: new(http.Protocols), DialContext: func(context.Context, string, string) (net.Conn, error) {
			return net.DialTimeout("unix", r.PathValue("socket"), 2*time.Second)
		}}
		h.Protocols.SetUnencryptedHTTP2(true)
		defer h.CloseIdleConnections()
		q, err := http.NewRequestWithContext(r.Context(), r.PathValue("method"), "http://there/"+r.PathValue("path"), nil)
		if err != nil {
			fmt.Fprint(w, err)
			return
		}
		res, err := h.RoundTrip(q)
		if err != nil {
			fmt.Fprint(w, err)
			return
		}
		res.Body.Close()
		fmt.Fprint(w, res.StatusCode)
	})
	m.HandleFunc("/in/", func(w http.ResponseWriter, r *http.Request) {
		b, err := os.ReadFile(r.URL.Path)
		if err != nil {
			w.WriteHeader(http.StatusNotFound)
		}
		w.Write(b)
	})
	m.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		for _, name := range []string{"Redoubt-Label", "Set-Cookie", "Content-Security-Policy", "X-Own"} {
			w.Header().Set(name, "TOP SECRET")
		}
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s %q %q %d", r.Method, r.URL.Path, r.URL.RawQuery, r.Header.Get("Redoubt-Label"), r.Header.Get("Authorization")+r.Header.Get("Cookie")+r.Header.Get("Redoubt_subject"), len(body))
	})
	return http.ListenAndServe(net.JoinHostPort(host, os.Getenv("PORT")), m)
}

// echo gives a body back while it comes.
func echo(w http.ResponseWriter, r *http.Request) {
	c := http.NewResponseController(w)
	c.EnableFullDuplex()
	for piece := make([]byte, 4096); ; c.Flush() {
		n, err := r.Body.Read(piece)
		w.Write(piece[:n])
		if err != nil {
			return
		}
	}
}

func kindOf(name string) error {
	_, err := os.ReadFile(name)
	return err
}

// plainly is an error in words that are the same for every file.
func plainly(err error) error {
	if p := new(fs.PathError); errors.As(err, &p) {
		return p.Err
	}
	return err
}
