package kube

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"redoubt"
	"redoubt/compute"
	"redoubt/compute/image"
)

// The containers of a pod.
const (
	agentContainer = "agent"
	inContainer    = "in"
	jobContainer   = "job"
)

// What our own binary needs beside the program.
const (
	ownMemory  = 64 << 20  // of each container that it stands in
	ownBytes   = 512 << 20 // of the volume that it is copied into
	nearLife   = 10 * time.Minute
	maxToken   = 16 << 10
	firstUser  = 1 << 20 // users of pods are drawn from here up: processes are counted by user, and no two runs share one
	rangeUsers = 1 << 30
)

// pod is a run's own.
type pod struct {
	d     *Driver
	space *space
	name  string
	since time.Time // when it was made
	holds []string  // its containers
	fed   time.Time // when its inputs began to be read; zero: it has none
	life  time.Duration
}

// place makes the pod, and the secret that its image is pulled by. A service's has no deadline of the cluster's but
// where it has inputs: its keeper ends it when the node has gone.
func (d *Driver) place(ctx context.Context, s *space, t compute.Task, i *image.Image, in *inputs, serves bool) (*pod, error) {
	id := make([]byte, 12)
	rand.Read(id)
	p := &pod{d: d, space: s, name: "service-" + hex.EncodeToString(id), since: time.Now()}
	meta := metav1.ObjectMeta{Name: p.name, Namespace: s.name, Labels: map[string]string{ownerLabel: d.owner}}
	spec := d.podSpec(t, i, in)
	switch {
	case !serves:
		p.name, p.life = "job-"+hex.EncodeToString(id), t.Timeout+d.o.Wait+nearLife+collectTime
		meta.Name, meta.Labels[jobLabel] = p.name, string(t.Job().ID)
	case in.any():
		p.life = inputsAge + t.Timeout + nearLife
	}
	if serves {
		spec.Containers[0].Command[2] = verbKeep
	}
	if p.life > 0 {
		spec.ActiveDeadlineSeconds = pointer(int64(math.Ceil(p.life.Seconds())))
	}
	p.holds = containers(spec)
	secret, err := d.pullSecret(meta)
	if err != nil {
		return nil, err
	}
	if secret != nil {
		spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: p.name}}
		if _, err := d.client.CoreV1().Secrets(s.name).Create(ctx, secret, metav1.CreateOptions{}); err != nil {
			p.remove(false) // it may have been made
			return nil, d.lost(s, err)
		}
	}
	for {
		_, err = d.client.CoreV1().Pods(s.name).Create(ctx, &corev1.Pod{ObjectMeta: meta, Spec: spec}, metav1.CreateOptions{})
		// A quota that is new is not counted yet, and one that others of the share use up is free again when they end.
		if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "quota") || time.Since(p.since) > d.o.Wait {
			break
		}
		select {
		case <-ctx.Done():
			err = ctx.Err()
		case <-time.After(100 * time.Millisecond):
			continue
		}
		break
	}
	if err == nil {
		return p, nil
	}
	p.remove(false)
	if apierrors.IsForbidden(err) && strings.Contains(err.Error(), "quota") {
		return nil, stop("the cluster had no room for it: its share has as many pods as it may have")
	}
	if apierrors.IsInvalid(err) {
		return nil, fmt.Errorf("the cluster takes no such pod: %w", err)
	}
	return nil, d.lost(s, err)
}

// lost has the next run make another namespace where this one has gone.
func (d *Driver) lost(s *space, err error) error {
	if apierrors.IsNotFound(err) || apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		d.forget(s)
	}
	return err
}

// pullSecret is what the cluster pulls by; nil: it needs nothing.
func (d *Driver) pullSecret(meta metav1.ObjectMeta) (*corev1.Secret, error) {
	if d.o.Token == "" {
		return nil, nil
	}
	f, err := os.Open(d.o.Token)
	if err != nil {
		return nil, errors.New("the file with the cluster's token for the registry cannot be read")
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxToken+1))
	token := strings.TrimSpace(string(b))
	if err != nil || token == "" || len(b) > maxToken {
		return nil, errors.New("the file with the cluster's token for the registry holds none")
	}
	auth := base64.StdEncoding.EncodeToString([]byte("cluster:" + token))
	text, err := json.Marshal(map[string]any{"auths": map[string]any{d.o.Registry: map[string]string{"auth": auth}}})
	if err != nil {
		return nil, err
	}
	yes := true
	return &corev1.Secret{ObjectMeta: meta, Immutable: &yes, Type: corev1.SecretTypeDockerConfigJson, Data: map[string][]byte{corev1.DockerConfigJsonKey: text}}, nil
}

func bytesQuantity(n int64) resource.Quantity { return *resource.NewQuantity(n, resource.BinarySI) }

// resources are limits of a container. Memory and disk are promised in full, so that no pod takes what another was given.
func resources(memory, disk, milliCPU, promisedCPU int64) corev1.ResourceRequirements {
	list := func(milli int64) corev1.ResourceList {
		return corev1.ResourceList{corev1.ResourceMemory: bytesQuantity(memory), corev1.ResourceEphemeralStorage: bytesQuantity(disk), corev1.ResourceCPU: *resource.NewMilliQuantity(milli, resource.DecimalSI)}
	}
	return corev1.ResourceRequirements{Limits: list(milliCPU), Requests: list(promisedCPU)}
}

// podSpec is the pod of a job, or of a service. All that tells something of the job goes another way.
func (d *Driver) podSpec(t compute.Task, i *image.Image, in *inputs) corev1.PodSpec {
	yes, no := true, false
	var drawn [8]byte
	rand.Read(drawn[:])
	user := int64(firstUser + binary.BigEndian.Uint64(drawn[:])%rangeUsers)
	walls := &corev1.SecurityContext{AllowPrivilegeEscalation: &no, Privileged: &no, ReadOnlyRootFilesystem: &yes, RunAsNonRoot: &yes, RunAsUser: &user, RunAsGroup: &user,
		Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}, SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}}

	volume := func(name string, inMemory bool, size int64) corev1.Volume {
		limit := bytesQuantity(size)
		v := &corev1.EmptyDirVolumeSource{SizeLimit: &limit}
		if inMemory {
			v.Medium = corev1.StorageMediumMemory
		}
		return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{EmptyDir: v}}
	}
	inSize := in.volume()
	diskOf := func(n int64) int64 { // what of a volume counts as a machine's disk
		if d.o.Disk {
			return n
		}
		return 0
	}
	inMemory := int64(ownMemory)
	if !d.o.Disk {
		inMemory += inSize
	}
	cpu := max(int64(math.Ceil(t.Limits.CPUs*1000)), 10)
	agent := corev1.Container{Name: agentContainer, Image: d.o.Agent, ImagePullPolicy: corev1.PullIfNotPresent, Command: []string{imagePath, Command, verbCopy}, SecurityContext: walls,
		Resources:    resources(ownMemory+ownBytes, ownBytes, 1000, 10),
		VolumeMounts: []corev1.VolumeMount{{Name: "agent", MountPath: agentDir}}}
	job := corev1.Container{Name: jobContainer, Image: d.o.Registry + "/" + i.Reference.Repository.String() + "@" + i.Digest.String(), ImagePullPolicy: corev1.PullAlways,
		Command: []string{agentPath, Command, verbHold}, WorkingDir: "/", SecurityContext: walls,
		Resources: resources(t.Limits.Memory+ownMemory, ownBytes+diskOf(t.Limits.Disk), cpu, max(cpu/4, 10)),
		VolumeMounts: []corev1.VolumeMount{{Name: "agent", MountPath: agentDir, ReadOnly: true}, {Name: "in", MountPath: inDir, ReadOnly: true},
			{Name: "work", MountPath: outDir, SubPath: "out"}, {Name: "work", MountPath: tmpDir, SubPath: "tmp"}}}
	spec := corev1.PodSpec{
		InitContainers: []corev1.Container{agent}, Containers: []corev1.Container{job},
		Volumes:       []corev1.Volume{volume("agent", false, ownBytes), volume("in", !d.o.Disk, inSize), volume("work", !d.o.Disk, t.Limits.Disk)},
		RestartPolicy: corev1.RestartPolicyNever, ServiceAccountName: account, AutomountServiceAccountToken: &no, EnableServiceLinks: &no, ShareProcessNamespace: &no,
		DNSPolicy: corev1.DNSNone, DNSConfig: &corev1.PodDNSConfig{Nameservers: []string{"127.0.0.1"}}, Hostname: "job", PriorityClassName: d.o.PriorityClass,
		SecurityContext:               &corev1.PodSecurityContext{RunAsNonRoot: &yes, RunAsUser: &user, RunAsGroup: &user, SeccompProfile: walls.SeccompProfile},
		NodeSelector:                  map[string]string{corev1.LabelOSStable: "linux", corev1.LabelArchStable: d.o.Arch},
		TerminationGracePeriodSeconds: pointer(int64(1)),
	}
	for k, v := range d.o.Machines {
		spec.NodeSelector[k] = v
	}
	if d.o.RuntimeClass != NoRuntimeClass {
		spec.RuntimeClassName = &d.o.RuntimeClass
	}
	if in.any() {
		spec.Containers = append(spec.Containers, corev1.Container{Name: inContainer, Image: d.o.Agent, ImagePullPolicy: corev1.PullIfNotPresent, Command: []string{imagePath, Command, verbHold}, SecurityContext: walls,
			Resources:    resources(inMemory, diskOf(inSize)+1<<20, 1000, 10),
			VolumeMounts: []corev1.VolumeMount{{Name: "in", MountPath: inDir}}})
	}
	return spec
}

func pointer[T any](v T) *T { return &v }

// remove removes the pod and its secret. wait: until the cluster says that nothing of it runs any more.
func (p *pod) remove(wait bool) {
	ctx, cancel := context.WithTimeout(context.Background(), cleanTime)
	defer cancel()
	client := p.d.client.CoreV1()
	now := metav1.DeleteOptions{GracePeriodSeconds: pointer(int64(0))}
	gone := func(err error) bool { return apierrors.IsNotFound(err) }
	if err := client.Secrets(p.space.name).Delete(ctx, p.name, metav1.DeleteOptions{}); err != nil && !gone(err) {
		p.d.forget(p.space) // then it goes with its namespace
	}
	options := now
	if wait {
		options.GracePeriodSeconds = pointer(int64(1)) // the object then stands until its machine has ended all of it
	}
	err := client.Pods(p.space.name).Delete(ctx, p.name, options)
	for wait && err == nil {
		_, err = client.Pods(p.space.name).Get(ctx, p.name, metav1.GetOptions{})
		select {
		case <-ctx.Done():
			err = ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	if err != nil && !gone(err) {
		ctx, cancel := context.WithTimeout(context.Background(), cleanTime)
		defer cancel()
		client.Pods(p.space.name).Delete(ctx, p.name, now) // its machine does not answer
		p.d.forget(p.space)
	}
}

// waitFor gives the pod to done whenever it may have changed, until that says so or fails.
func (p *pod) waitFor(ctx context.Context, done func(*corev1.Pod) (bool, error)) error {
	client := p.d.client.CoreV1().Pods(p.space.name)
	for {
		now, err := client.Get(ctx, p.name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if ok, err := done(now); ok || err != nil {
			return err
		}
		if err := p.next(ctx, now.ResourceVersion); err != nil {
			return err
		}
	}
}

// next waits for the pod to change, for a second at most: what waits for it has bounds of time too.
func (p *pod) next(ctx context.Context, version string) error {
	within, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	w, err := p.d.client.CoreV1().Pods(p.space.name).Watch(within, metav1.ListOptions{FieldSelector: "metadata.name=" + p.name, ResourceVersion: version})
	if err == nil {
		defer w.Stop()
		select {
		case <-w.ResultChan():
		case <-within.Done():
		}
		return ctx.Err()
	}
	<-within.Done() // it is asked again
	return ctx.Err()
}

// containers is what runs in a pod, in words to compare.
func containers(s corev1.PodSpec) (all []string) {
	for _, c := range slices.Concat(s.InitContainers, s.Containers) {
		all = append(all, fmt.Sprintf("%q", append([]string{c.Name, c.Image}, slices.Concat(c.Command, []string{""}, c.Args)...)))
	}
	for _, c := range s.EphemeralContainers {
		all = append(all, fmt.Sprintf("%q", c.Name))
	}
	slices.Sort(all)
	return all
}

// ready waits until the containers run, and nothing else.
func (p *pod) ready(ctx context.Context) error {
	return p.waitFor(ctx, func(now *corev1.Pod) (bool, error) {
		if err := p.fault(now); err != nil {
			return false, err
		}
		running := 0
		for _, c := range now.Status.ContainerStatuses {
			if c.State.Running != nil {
				running++
			}
		}
		if !slices.Equal(containers(now.Spec), p.holds) { // what is put beside it has a network, and shares its sockets
			return false, stop("the cluster puts containers of its own into pods, or changes ours: what does so (an admission webhook) has to leave out the namespaces that are labelled %s", ownerLabel)
		}
		if running == len(now.Spec.Containers) {
			return true, p.dropSecret(ctx)
		}
		if time.Since(p.since) > p.d.o.Wait {
			return false, stop("the cluster did not begin it in %s", p.d.o.Wait)
		}
		return false, nil
	})
}

// dropSecret removes what the image was pulled by, which is not needed any more.
func (p *pod) dropSecret(ctx context.Context) error {
	err := p.d.client.CoreV1().Secrets(p.space.name).Delete(ctx, p.name, metav1.DeleteOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// fault says why a pod cannot do what it is there for, if so.
func (p *pod) fault(now *corev1.Pod) error {
	s := now.Status
	for _, c := range s.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse && c.Reason == corev1.PodReasonUnschedulable && time.Since(p.since) > p.d.o.Wait {
			return stop("the cluster has no room for it: it had no machine to spare in %s; ask for less with --memory and --cpus, or try later", p.d.o.Wait)
		}
	}
	for _, c := range s.InitContainerStatuses {
		if w := c.State.Waiting; w != nil && strings.Contains(w.Reason, "Image") {
			return fmt.Errorf("the agent's image cannot be pulled: %s", compute.Plain(w.Reason+": "+w.Message))
		}
		if e := c.State.Terminated; e != nil && e.ExitCode != 0 {
			return fmt.Errorf("the agent could not be put into the pod: %s", compute.Plain(fmt.Sprintf("exit code %d, %s: %s", e.ExitCode, e.Reason, e.Message)))
		}
	}
	for _, c := range s.ContainerStatuses {
		if err := p.containerFault(c, now); err != nil {
			return err
		}
	}
	switch {
	case now.DeletionTimestamp != nil:
		return errors.New("somebody has removed the pod")
	case s.Phase != corev1.PodFailed && s.Phase != corev1.PodSucceeded:
		return nil
	case s.Reason == "DeadlineExceeded":
		return stop("out of time: the cluster has ended it after %s in all", p.life)
	case s.Reason == "Evicted":
		return stop("the cluster has put it out: it used more than it may (--memory, --disk), or its machine had too little for all")
	}
	return fmt.Errorf("the pod has ended: %s", compute.Plain(s.Reason+": "+s.Message))
}

// final is what a registry's answer has in it that is the same when it is asked again.
var final = regexp.MustCompile(`(?i)\b(401|403|404|unauthorized|forbidden|denied|not found)\b`)

func (p *pod) containerFault(c corev1.ContainerStatus, now *corev1.Pod) error {
	if w := c.State.Waiting; w != nil {
		switch {
		case w.Reason == "ErrImagePull" && !final.MatchString(w.Message): // it is tried again
		case strings.Contains(w.Reason, "Image") && c.Name == jobContainer:
			return stop("the cluster cannot pull the image from this node's registry (%s): does its credential there dominate the image's label, and can its machines reach %s?", compute.Plain(w.Reason), p.d.o.Registry)
		case strings.Contains(w.Reason, "Image"):
			return fmt.Errorf("the agent's image cannot be pulled: %s", compute.Plain(w.Reason+": "+w.Message))
		case w.Reason == "CreateContainerConfigError" || w.Reason == "CreateContainerError" || w.Reason == "RunContainerError":
			return stop("the cluster cannot run the image: %s", compute.Plain(w.Message))
		}
	}
	e := c.State.Terminated
	switch {
	case e == nil || now.DeletionTimestamp != nil:
		return nil
	case e.Reason == "OOMKilled": // gVisor's sandbox is one for all containers
		return errMemory
	case now.Status.Phase == corev1.PodFailed && now.Status.Reason != "":
		return nil // which says more
	case e.Reason == "StartError" || e.Reason == "ContainerCannotRun":
		return stop("the cluster cannot run the image: %s", compute.Plain(e.Message))
	case c.Name == jobContainer && e.ExitCode == exitNoWall:
		return lacks("the cluster's machines have nothing to wall in a service's sockets with: that takes Linux 5.14 or gVisor")
	case c.Name == jobContainer && e.ExitCode == exitNoKeeper:
		return lacks("what keeps a service could not be started in its pod: has its machine memory and processes to spare?")
	case c.Name == jobContainer && (e.ExitCode == exitNoVerb || e.ExitCode == 1): // the program does not choose it: none can end the first process
		return lacks("the agent's image is of another version than the node: make it anew (redoubt job agent-image), and name it in the estate (kubernetes, agent)")
	case c.Name == jobContainer && e.ExitCode == 128+9:
		return stop("it was killed: the sandbox had no more memory, or it has ended what runs beside it")
	case c.Name == jobContainer:
		return stop("it has ended what runs beside it in its pod")
	}
	return fmt.Errorf("the container %s has ended: %s", c.Name, compute.Plain(e.Reason))
}

// lacks is what the cluster's administrator has to mend. The deployer of a service is told; a job is tried again.
func lacks(hint string) error {
	return &redoubt.Error{Op: "kube", Kind: redoubt.Unavailable, Hint: hint}
}

// errMemory is a container that the kernel has ended for its memory.
var errMemory = errors.New("out of memory")

// outOfMemory is how the submitter is told.
func outOfMemoryExit(l redoubt.JobLimits) error {
	return stop("out of memory: it may use %d MiB, with what it writes to /out and /tmp; ask for more with --memory", l.Memory>>20)
}

// because finds out why a stream has ended, as far as the cluster knows: it tells a little later.
func (p *pod) because(ctx context.Context, err error) error {
	if _, ok := errors.AsType[*stopped](err); ok || err == nil || ctx.Err() != nil {
		return err
	}
	within, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	found := p.waitFor(within, func(now *corev1.Pod) (bool, error) { return false, p.fault(now) })
	if within.Err() != nil || found == nil {
		return err
	}
	return found
}
