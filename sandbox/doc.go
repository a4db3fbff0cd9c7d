// Package sandbox runs one program for one input and leaves it nothing else: no network, no files but those that it was given, no
// privileges, no descriptors, no more memory, time, processes or output than was allowed.
//
//	out, err := sandbox.Run(ctx, sandbox.Program{Name: "jq", Path: "/usr/bin/jq", Args: []string{"-c", "."}, ReadOnly: sandbox.Libraries()}, in)
//
// A program is a [Worker] of our own binary, or one of the machine's. Either begins as our own binary executed anew ([Enter]), which walls
// itself in and only then works or executes the other; what it did to itself holds in what it executes:
//
//	namespaces   user, mount, network, process, IPC and host name of its own; a root folder in memory with what was given, read-only
//	privileges   as root it becomes nobody; every capability is given up for good, no_new_privs is set
//	Landlock     reading what was given, and nothing else, by the kernel's second opinion
//	rlimits      memory, processor time, file size, open files, processes
//	seccomp      what a computing program needs is allowed; what reaches out of the process kills it; all else is refused
//
// Nothing here is optional. Where the kernel lacks one of them, or forbids it, nothing runs, and the error says what is missing
// ([Available] tells before). Process 1 of its process namespace is the program itself: when it is ended, so is everything that it started. The
// kernel spares such a process the signals that it sends itself, and those alone: a fault, a limit or a forbidden call ends it.
//
// What is started of a [Binary] is forked by a launcher of that, a small process beside us, since forking with these namespaces costs a large one much.
// Whatever runs ends with who started it.
//
// The program's memory is that of a fresh process with an empty environment. It can still burn the processor time that it was given, and
// write what it likes to its output: who reads that must hold it for hostile.
package sandbox
