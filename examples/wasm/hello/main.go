// Command hello is a service: a WebAssembly module that answers one HTTP request, which it is given as CGI says.
//
//	GOOS=wasip1 GOARCH=wasm go build -o hello.wasm ./examples/wasm/hello
//	redoubt service deploy hello --wasm hello.wasm --in s3://reports --as s-analyst@secret
//
// GET / greets whoever asks; GET /BUCKET/KEY gives an object that the service may read at the caller's label; POST / gives the body back.
package main

import (
	"fmt"
	"io"
	"os"
	"path"
)

func main() {
	if err := answer(os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "hello:", err)
		os.Exit(1)
	}
}

func answer(w io.Writer) error {
	name := os.Getenv("PATH_INFO")
	switch {
	case os.Getenv("REQUEST_METHOD") == "POST":
		fmt.Fprint(w, "Content-Type: application/octet-stream\n\n")
		_, err := io.Copy(w, os.Stdin)
		return err
	case name == "" || name == "/":
		_, err := fmt.Fprintf(w, "Content-Type: text/plain\n\nhello %s at %s\n", os.Getenv("REMOTE_USER"), os.Getenv("REDOUBT_LABEL"))
		return err
	}
	f, err := os.Open(path.Join("/in", name))
	if err != nil {
		_, err := fmt.Fprintf(w, "Status: 404 Not Found\nContent-Type: text/plain\n\nno such file\n")
		return err
	}
	defer f.Close()
	fmt.Fprint(w, "Content-Type: text/plain\n\n")
	_, err = io.Copy(w, f)
	return err
}
