package oci

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/control/client"
	"gvisor.dev/gvisor/pkg/control/server"
	"gvisor.dev/gvisor/pkg/sentry/control"
	"gvisor.dev/gvisor/pkg/urpc"
	"gvisor.dev/gvisor/runsc/boot"
	"gvisor.dev/gvisor/runsc/cli"
	"gvisor.dev/gvisor/runsc/cmd/sentry/sentrycmd"
	"gvisor.dev/gvisor/runsc/cmd/util"
	runsc "gvisor.dev/gvisor/runsc/config"
	"gvisor.dev/gvisor/runsc/flag"
	"gvisor.dev/gvisor/runsc/specutils"

	"redoubt"
	"redoubt/compute/oci/layers"
)

// sentryName is how our binary is executed to be gVisor's kernel of a sandbox. The kernel's own helper is executed as /proc/self/exe.
const sentryName = "runsc-sandbox"

// sentry becomes gVisor, and does not return.
func sentry() {
	cli.Run(nil, map[util.SubCommand]string{new(sentrycmd.Boot): "", new(sentrycmd.Umount): ""}, nil)
	os.Exit(128)
}

// flags are gVisor's. Files come through our own file server, which gives no descriptors of the machine's files away. The network of a sandbox is
// its own loopback, and that of its namespace is empty; only gVisor's "sandbox" has a link besides, which is for a service and for what a job was
// granted (network_linux.go).
func (b bootSpec) flags() []string {
	network := "none"
	if b.linked() {
		network = "sandbox"
	}
	return append([]string{"--network=" + network}, fixedFlags...)
}

var fixedFlags = []string{
	"--platform=systrap", "--ignore-cgroups", "--directfs=false", "--file-access-mounts=exclusive", "--overlay2=none",
	"--host-uds=none", "--host-fifo=none", "--host-settings=ignore", "--oci-seccomp=false", "--net-raw=false", "--rootless=false", "--watchdog-action=log",
}

func gvisorConfig(b bootSpec) (*runsc.Config, error) {
	set := flag.NewFlagSet("", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	runsc.RegisterFlags(set)
	if err := set.Parse(b.flags()); err != nil {
		return nil, err
	}
	return runsc.NewFromFlags(set)
}

const sandboxID = "sandbox"

// Annotations that say which container is the first of a sandbox and which is another in it (runsc/specutils/cri.go).
var (
	firstOfSandbox  = map[string]string{"io.kubernetes.cri.container-type": "sandbox"}
	otherOfSandbox  = map[string]string{"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-id": sandboxID}
	firstNamespaces = []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace}, {Type: specs.MountNamespace}}
)

const hostname = redoubt.SandboxHost

// startSentry begins a sandbox: gVisor's kernel in namespaces of its own with an empty root, no capability and its own system call filter, in which
// a program that only waits holds the place. dir is for its control socket. links is all that it has of a network.
func startSentry(dir string, b bootSpec, links *boot.CreateLinksAndRoutesArgs) (g *gvisor, err error) {
	root, err := pauseRoot()
	if err != nil {
		return nil, err
	}
	defer root.Close()
	spec, err := memfile("spec", mustJSON(&specs.Spec{
		Version:  specs.Version,
		Process:  &specs.Process{Args: []string{"/pause"}, Cwd: "/", NoNewPrivileges: true},
		Root:     &specs.Root{Path: "/", Readonly: true},
		Hostname: hostname, Annotations: firstOfSandbox,
		Linux: &specs.Linux{Namespaces: firstNamespaces},
	}))
	if err != nil {
		return nil, err
	}
	defer spec.Close()
	socket := filepath.Join(dir, "control")
	fd, err := server.CreateSocket(socket)
	if err != nil {
		return nil, err
	}
	control := os.NewFile(uintptr(fd), socket)
	defer control.Close()
	started, theirs, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer started.Close()
	defer theirs.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()

	var said bytes.Buffer
	cmd := &exec.Cmd{Path: "/proc/self/exe", Args: append([]string{sentryName}, b.flags()...), Env: []string{}, Stderr: &boundedWriter{w: &said, left: 4096}}
	give := func(name string, f *os.File) {
		cmd.Args = append(cmd.Args, "--"+name+"="+strconv.Itoa(3+len(cmd.ExtraFiles)))
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	}
	cpus := max(1, int(b.CPUs+0.999))
	cmd.Args = append(cmd.Args, "boot", "--bundle=/", "--apply-caps=true", "--setup-root", "--attached", "--gofer-mount-confs=erofs:none",
		"--cpu-num="+strconv.Itoa(min(cpus, runtime.NumCPU())), "--total-memory="+strconv.FormatInt(b.Memory, 10), "--total-host-memory="+strconv.FormatInt(b.Memory, 10),
		"--product-name=redoubt")
	give("io-fds", root)
	give("start-sync-fd", theirs)
	give("controller-fd", control)
	give("spec-fd", spec)
	for range 3 {
		give("stdio-fds", null)
	}
	cmd.Args = append(cmd.Args, sandboxID)
	const nobody = 65534
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid: true, Pdeathsig: syscall.SIGKILL,
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS | syscall.CLONE_NEWNET,
		Credential:  &syscall.Credential{Uid: nobody, Gid: nobody, NoSetGroups: true},
		UidMappings: []syscall.SysProcIDMap{{ContainerID: nobody, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: nobody, HostID: os.Getgid(), Size: 1}},
		AmbientCaps: []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_SYS_CHROOT, unix.CAP_SETPCAP}, // to build its empty root; it gives them up before it boots
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting gVisor: %w", err)
	}
	theirs.Close()
	if n, err := started.Read(make([]byte, 1)); n != 1 {
		cmd.Process.Kill()
		cmd.Wait()
		return nil, fmt.Errorf("gVisor did not start: %v %s", err, said.String())
	}
	g = &gvisor{cmd: cmd, socket: socket}
	if g.conf, err = gvisorConfig(b); err == nil {
		err = g.call(boot.ContMgrSetNetworkArgs, links, nil)
	}
	if err == nil {
		id := sandboxID
		err = g.call(boot.ContMgrRootContainerStart, &id, nil)
	}
	if err != nil {
		cmd.Process.Kill()
		cmd.Wait()
		return nil, fmt.Errorf("gVisor: %w", err)
	}
	return g, nil
}

// gvisor is the kernel of a sandbox that stands, and what is asked of it over its control socket.
type gvisor struct {
	cmd    *exec.Cmd
	socket string
	conf   *runsc.Config
}

func (g *gvisor) call(method string, arg, result any) error {
	var c *urpc.Client
	c, err := client.ConnectTo(g.socket)
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Call(method, arg, result)
}

// start starts a program in a container of its own. files are its root, and the connections for /in and /out, and for /etc/hosts where that is given.
func (g *gvisor) start(r runSpec, disk int64, stdio, files []*os.File) error {
	if err := g.call(boot.ContMgrCreateSubcontainer, &boot.CreateArgs{CID: r.ID}, nil); err != nil {
		return err
	}
	spec, mounts := containerSpec(r, disk), mountConfs(disk)
	if len(files) > len(mounts) {
		spec.Mounts = append(spec.Mounts, specs.Mount{Destination: "/etc/hosts", Type: "bind", Source: "/etc/hosts", Options: []string{"bind", "ro"}})
		mounts = append(mounts, specutils.GoferMountConf{Lower: specutils.Lisafs, Upper: specutils.NoOverlay})
	}
	return g.call(boot.ContMgrStartSubcontainer, &boot.StartArgs{
		Spec: spec, Conf: g.conf, CID: r.ID, GoferMountConfs: mounts, FilePayload: urpc.FilePayload{Files: append(stdio, files...)},
	}, nil)
}

// wait gives how a program ended.
func (g *gvisor) wait(id string) (ws syscall.WaitStatus, err error) {
	err = g.call(boot.ContMgrWait, &id, &ws)
	return ws, err
}

// destroy ends all that is left of a container.
func (g *gvisor) destroy(id string) error { return g.call(boot.ContMgrDestroySubcontainer, &id, nil) }

// processes counts the threads of a container.
func (g *gvisor) processes(id string) (int, error) {
	var out boot.EventOut
	err := g.call(boot.ContMgrEvent, &id, &out)
	return int(out.Event.Data.Pids.Current), err
}

// memory gives the file that all memory of a sandbox's programs is in.
func (g *gvisor) memory() (*os.File, error) {
	var m control.MemoryUsageFile
	if err := g.call(boot.UsageUsageFD, &control.MemoryUsageFileOpts{Version: 1}, &m); err != nil {
		return nil, err
	}
	if len(m.FilePayload.Files) != 2 {
		return nil, fmt.Errorf("gVisor gave %d files", len(m.FilePayload.Files))
	}
	m.FilePayload.Files[0].Close()
	return m.FilePayload.Files[1], nil
}

// containerSpec is what gVisor is told of one program.
func containerSpec(r runSpec, disk int64) *specs.Spec {
	// What root has in most engines, but for raw sockets and devices.
	caps := []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_KILL", "CAP_SYS_CHROOT"}
	p := r.Process
	s := &specs.Spec{
		Version: specs.Version,
		Process: &specs.Process{
			User: specs.User{UID: p.UID, GID: p.GID, AdditionalGids: p.Groups}, Args: p.Args, Env: p.Env, Cwd: p.Cwd, NoNewPrivileges: true,
			Capabilities: &specs.LinuxCapabilities{Bounding: caps},
			Rlimits:      []specs.POSIXRlimit{{Type: "RLIMIT_CORE"}, {Type: "RLIMIT_NOFILE", Soft: 65536, Hard: 65536}},
		},
		Root:     &specs.Root{Path: "/"},
		Hostname: hostname, Annotations: otherOfSandbox,
		Mounts: []specs.Mount{
			{Destination: "/in", Type: "bind", Source: "/in", Options: []string{"bind", "ro"}},
			{Destination: "/out", Type: "bind", Source: "/out", Options: []string{"bind", "rw"}},
			{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs", Options: []string{"mode=1777", "size=" + strconv.FormatInt(disk, 10)}},
			{Destination: "/dev/shm", Type: "tmpfs", Source: "tmpfs", Options: []string{"mode=1777", "size=" + strconv.FormatInt(disk, 10)}},
		},
		Linux: &specs.Linux{Namespaces: firstNamespaces},
	}
	if p.UID == 0 {
		s.Process.Capabilities.Effective, s.Process.Capabilities.Permitted = caps, caps
	}
	return s
}

// mountConfs say where the root, /in and /out come from, in that order.
func mountConfs(disk int64) []specutils.GoferMountConf {
	return []specutils.GoferMountConf{
		{Lower: specutils.Erofs, Upper: specutils.MemoryOverlay, Size: strconv.FormatInt(disk, 10)},
		{Lower: specutils.Lisafs, Upper: specutils.NoOverlay},
		{Lower: specutils.Lisafs, Upper: specutils.NoOverlay},
	}
}

func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// memfile is a file in memory.
func memfile(name string, content []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), name)
	if _, err := f.Write(content); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// sealed gives a file in memory that nobody can change any more, open to be read.
func sealed(f *os.File) (*os.File, error) {
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_WRITE|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL); err != nil {
		return nil, os.NewSyscallError("seal", err)
	}
	return os.Open("/proc/self/fd/" + strconv.Itoa(int(f.Fd())))
}

// pauseRoot is the root of the program that only waits.
func pauseRoot() (*os.File, error) {
	image, err := layers.Program("pause", pauseProgram(), "proc", "dev", "sys", "tmp")
	if err != nil {
		return nil, err
	}
	f, err := memfile("pause", image)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return sealed(f)
}

// pauseProgram is an executable that waits for a signal, for ever.
func pauseProgram() []byte {
	code, machine := []byte{0xb8, 34, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7}, uint16(62) // mov $SYS_pause, %eax; syscall; jmp
	if runtime.GOARCH == "arm64" {
		code, machine = nil, 183
		for _, w := range []uint32{0xd2800000, 0xd2800001, 0xd2800002, 0xd2800003, 0xd2800928, 0xd4000001, 0x17fffffa} { // ppoll(0, 0, 0, 0); b
			code = binary.LittleEndian.AppendUint32(code, w)
		}
	}
	const base, head = 0x400000, 64 + 56
	le := binary.LittleEndian
	p := make([]byte, head)
	copy(p, "\x7fELF\x02\x01\x01")
	le.PutUint16(p[16:], 2) // ET_EXEC
	le.PutUint16(p[18:], machine)
	le.PutUint32(p[20:], 1)
	le.PutUint64(p[24:], base+head)
	le.PutUint64(p[32:], 64)
	le.PutUint16(p[52:], 64)
	le.PutUint16(p[54:], 56)
	le.PutUint16(p[56:], 1)
	ph := p[64:]
	le.PutUint32(ph, 1)     // PT_LOAD
	le.PutUint32(ph[4:], 5) // read, execute
	le.PutUint64(ph[16:], base)
	le.PutUint64(ph[24:], base)
	le.PutUint64(ph[32:], uint64(head+len(code)))
	le.PutUint64(ph[40:], uint64(head+len(code)))
	le.PutUint64(ph[48:], 0x1000)
	return append(p, code...)
}

// boundedWriter keeps the beginning.
type boundedWriter struct {
	w    io.Writer
	left int
}

func (b *boundedWriter) Write(p []byte) (int, error) {
	n := min(len(p), b.left)
	b.left -= n
	_, err := b.w.Write(p[:n])
	return len(p), err
}
