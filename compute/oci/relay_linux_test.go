package oci

import (
	"io"
	"net"
	"testing"
)

// A request that was given up leaves no connection with a program that says nothing.
func TestARequestThatIsGivenUpEndsItsConnection(t *testing.T) {
	program, programEnd := net.Pipe()
	node, nodeEnd := net.Pipe()
	defer programEnd.Close()
	done := make(chan struct{})
	go func() { answerOver(programEnd, nodeEnd); close(done) }()
	go io.WriteString(node, "half a request")
	if b := make([]byte, 14); true {
		if _, err := io.ReadFull(program, b); err != nil || string(b) != "half a request" {
			t.Fatalf("the program was told %q, %v", b, err)
		}
	}
	node.Close()
	<-done
}
