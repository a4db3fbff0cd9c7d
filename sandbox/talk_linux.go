package sandbox

import (
	"context"
	"io"

	"redoubt"
)

// Talk has f speak with the program over its standard input and output until f returns; then both are closed, and the program ends. It is for programs
// that ask and are answered, and say nothing behind what ends f: Limits.Wall and Limits.Output are f's to keep. When ctx ends the program is killed, which
// f sees as the end of what it reads. ended is how the program ended, as the function Run tells it; f's own error comes first.
func (r *Process) Talk(ctx context.Context, f func(in io.Writer, out io.Reader) error) (said, ended error) {
	stop := context.AfterFunc(ctx, func() { r.stub.kill() })
	defer stop()
	said = f(r.in, r.out)
	if err := r.in.Close(); said == nil {
		said = err
	}
	if said != nil {
		r.stub.kill()
	}
	_ = r.out.Close() // what it says now is heard by nobody, and does not keep it from ending
	r.wait()
	return said, r.exit()
}

// Window is what it was given; nil: none. It ends with the process.
func (r *Process) Window() *Window { return r.window }

// exit is how the process ended, once it has.
func (r *Process) exit() error {
	if r.ended == nil {
		return nil
	}
	return &redoubt.Error{Op: "sandbox", Object: r.name, Kind: redoubt.Internal, Err: r.how()}
}
