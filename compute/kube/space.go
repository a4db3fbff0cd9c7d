package kube

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Labels and annotations of what the driver makes. Their values are hashes and random IDs; shareNote alone is in clear, where the estate says so.
const (
	ownerLabel = "redoubt/owner"
	jobLabel   = "redoubt/job"
	shareNote  = "redoubt/share"
)

// retireTries is how often a namespace is tried to be removed, which takes an hour at most. What is left then goes when the driver is closed or begins.
const retireTries = 60

// account is what pods run as: one that may do nothing, and whose token is not given to them.
const account = "job"

// space is the namespace of a share.
type space struct {
	share, name string
	once        sync.Mutex // held while it is made, and for made
	made        bool

	// The driver's mu is held for these.
	gone  bool // it is not to be used again
	users int
	idle  *time.Timer
}

// enter gives the share's namespace, and makes it where there is none. Who has it gives it back by leave.
func (d *Driver) enter(ctx context.Context, share string) (*space, error) {
	d.mu.Lock()
	s := d.spaces[share]
	if s == nil {
		salt := time.Now().Format(time.RFC3339Nano) // one that was removed is not made again under its name
		s = &space{share: share, name: "redoubt-" + opaque(d.key, share+"\x00"+salt)}
		s.idle = time.AfterFunc(time.Hour, func() { d.retire(s) })
		s.idle.Stop()
		d.spaces[share] = s
	}
	s.users++
	s.idle.Stop()
	d.mu.Unlock()

	s.once.Lock()
	defer s.once.Unlock()
	if s.made {
		return s, nil
	}
	if err := d.makeSpace(ctx, s); err != nil {
		d.forget(s)
		d.leave(s)
		return nil, err
	}
	s.made = true
	return s, nil
}

// forget has the next of the share get another namespace.
func (d *Driver) forget(s *space) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s.gone = true
	if d.spaces[s.share] == s {
		delete(d.spaces, s.share)
	}
}

func (d *Driver) leave(s *space) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s.users--; s.users > 0 {
		return
	}
	if s.gone {
		s.idle.Reset(0)
	} else {
		s.idle.Reset(keepIdle)
	}
}

// retire removes a namespace that nothing runs in.
func (d *Driver) retire(s *space) {
	d.mu.Lock()
	if s.users > 0 || d.stopping.Err() != nil { // Close removes all
		d.mu.Unlock()
		return
	}
	s.gone = true
	if d.spaces[s.share] == s {
		delete(d.spaces, s.share)
	}
	d.running.Add(1)
	d.mu.Unlock()
	defer d.running.Done()
	for try := 1; ; try++ {
		ctx, cancel := context.WithTimeout(d.stopping, cleanTime)
		err := d.client.CoreV1().Namespaces().Delete(ctx, s.name, metav1.DeleteOptions{})
		cancel()
		if err == nil || apierrors.IsNotFound(err) || d.stopping.Err() != nil {
			return
		}
		d.o.Log.Warn("a namespace could not be removed from the cluster", slog.String("reason", string(apierrors.ReasonForError(err))), slog.Bool("again", try < retireTries))
		if try == retireTries {
			return
		}
		select {
		case <-d.stopping.Done():
			return
		case <-time.After(sweepAgain):
		}
	}
}

func (d *Driver) forgetAll() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range d.spaces {
		s.idle.Stop()
	}
	clear(d.spaces)
}

// removeAll removes every namespace of this driver's owner, and with each all that is in it.
func (d *Driver) removeAll(ctx context.Context) error {
	all, err := d.client.CoreV1().Namespaces().List(ctx, metav1.ListOptions{LabelSelector: ownerLabel + "=" + d.owner})
	if err != nil {
		return err
	}
	var failed error
	for _, n := range all.Items {
		if n.DeletionTimestamp != nil {
			continue
		}
		if err := d.client.CoreV1().Namespaces().Delete(ctx, n.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			failed = errors.Join(failed, err)
		}
	}
	return failed
}

// makeSpace makes a namespace and its walls, before anything is put into it.
func (d *Driver) makeSpace(ctx context.Context, s *space) error {
	own := metav1.ObjectMeta{Name: account, Namespace: s.name, Labels: map[string]string{ownerLabel: d.owner}}
	n := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.name, Labels: map[string]string{ownerLabel: d.owner,
		"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/enforce-version": "latest"}}}
	if d.o.Annotate {
		n.Annotations = map[string]string{shareNote: s.share}
	}
	if _, err := d.client.CoreV1().Namespaces().Create(ctx, n, metav1.CreateOptions{}); err != nil {
		return err
	}
	no := false
	if _, err := d.client.CoreV1().ServiceAccounts(s.name).Create(ctx, &corev1.ServiceAccount{ObjectMeta: own, AutomountServiceAccountToken: &no}, metav1.CreateOptions{}); err != nil {
		return err
	}
	if _, err := d.client.NetworkingV1().NetworkPolicies(s.name).Create(ctx, &networkingv1.NetworkPolicy{ObjectMeta: own, Spec: networkingv1.NetworkPolicySpec{
		PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress}}}, metav1.CreateOptions{}); err != nil {
		return err
	}
	small := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("64Mi"), corev1.ResourceEphemeralStorage: resource.MustParse("16Mi")}
	if _, err := d.client.CoreV1().LimitRanges(s.name).Create(ctx, &corev1.LimitRange{ObjectMeta: own, Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{
		{Type: corev1.LimitTypeContainer, Default: small, DefaultRequest: small}}}}, metav1.CreateOptions{}); err != nil {
		return err
	}
	hard := corev1.ResourceList{corev1.ResourcePods: *resource.NewQuantity(int64(d.o.Pods), resource.DecimalSI), corev1.ResourceSecrets: *resource.NewQuantity(int64(d.o.Pods)+4, resource.DecimalSI)}
	for _, none := range []corev1.ResourceName{corev1.ResourceServices, corev1.ResourcePersistentVolumeClaims, corev1.ResourceReplicationControllers, "count/deployments.apps", "count/statefulsets.apps", "count/daemonsets.apps", "count/jobs.batch", "count/cronjobs.batch"} {
		hard[none] = resource.MustParse("0")
	}
	_, err := d.client.CoreV1().ResourceQuotas(s.name).Create(ctx, &corev1.ResourceQuota{ObjectMeta: own, Spec: corev1.ResourceQuotaSpec{Hard: hard}}, metav1.CreateOptions{})
	return err
}
