package kube

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/klog/v2"

	"redoubt"
)

// executor starts a program in a container and joins its streams to in and out, until it ends.
type executor func(ctx context.Context, namespace, pod, container string, argv []string, in io.Reader, out, errs io.Writer) error

// quiet keeps client-go, which writes names of objects to standard error, from doing so.
var quiet = sync.OnceFunc(func() { klog.SetLogger(logr.Discard()) })

func badConfig(why, hint string) error {
	return &redoubt.Error{Op: "kube.New", Kind: redoubt.Invalid, Err: errors.New(why), Hint: hint}
}

// config reads a kubeconfig. What would run programs, trust any server or let others read the key is refused.
func config(file string) (*rest.Config, error) {
	s, err := os.Stat(file)
	if err != nil {
		return nil, badConfig("the kubeconfig cannot be read", "put it where the estate says (kubernetes, kubeconfig), for the node's user alone")
	}
	if s.Mode()&0o077 != 0 {
		return nil, badConfig("the kubeconfig can be read by others", "chmod 600 it")
	}
	c, err := clientcmd.BuildConfigFromFlags("", file)
	if err != nil {
		return nil, badConfig("the kubeconfig is malformed", "kubectl --kubeconfig FILE config view says where")
	}
	switch {
	case c.ExecProvider != nil || c.AuthProvider != nil:
		return nil, badConfig("the kubeconfig has a program fetch credentials", "give it a token or a client certificate")
	case c.Insecure:
		return nil, badConfig("the kubeconfig trusts any server (insecure-skip-tls-verify)", "give it the cluster's certificate authority")
	case !strings.HasPrefix(c.Host, "https://"):
		return nil, badConfig("the kubeconfig names a server without TLS", "its server begins with https://")
	}
	c.Proxy = func(*http.Request) (*url.URL, error) { return nil, nil } // nothing is dialled but what the kubeconfig names
	c.QPS, c.Burst = 50, 100
	c.UserAgent = "redoubt"
	c.WarningHandler = rest.NoWarnings{}
	return c, nil
}

// connect makes what talks with the cluster. Nothing is dialled yet.
func connect(file string) (kubernetes.Interface, executor, error) {
	quiet()
	c, err := config(file)
	if err != nil {
		return nil, nil, err
	}
	client, err := kubernetes.NewForConfig(c)
	if err != nil {
		return nil, nil, badConfig("the kubeconfig cannot be used: "+err.Error(), "kubectl --kubeconfig FILE version tries it")
	}
	return client, func(ctx context.Context, namespace, pod, container string, argv []string, in io.Reader, out, errs io.Writer) error {
		at := client.CoreV1().RESTClient().Post().Resource("pods").Namespace(namespace).Name(pod).SubResource("exec").
			VersionedParams(&corev1.PodExecOptions{Container: container, Command: argv, Stdin: true, Stdout: true, Stderr: true}, scheme.ParameterCodec).URL()
		e, err := remotecommand.NewSPDYExecutor(c, http.MethodPost, at) // over WebSocket the handshake takes SHA-1, which FIPS 140-3 refuses
		if err != nil {
			return err
		}
		return e.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: in, Stdout: out, Stderr: errs})
	}, nil
}

// lacking says what the cluster lacks.
func lacking(ctx context.Context, client kubernetes.Interface, o Options) error {
	fault := func(err error, format string, args ...any) error {
		return &redoubt.Error{Op: "kube", Kind: redoubt.Unavailable, Hint: fmt.Sprintf(format, args...), Err: err}
	}
	_, err := client.CoreV1().Namespaces().List(ctx, metav1.ListOptions{LabelSelector: ownerLabel + "=" + ownerID(o.Owner), Limit: 1})
	switch {
	case apierrors.IsUnauthorized(err) || apierrors.IsForbidden(err):
		return fault(err, "the cluster refuses the credential of the kubeconfig: docs/operating.md lists what it must be allowed")
	case err != nil:
		return fault(err, "is the cluster's API server up, and does the kubeconfig name it?")
	}
	if o.RuntimeClass != NoRuntimeClass {
		if _, err := client.NodeV1().RuntimeClasses().Get(ctx, o.RuntimeClass, metav1.GetOptions{}); err != nil {
			return fault(err, "the cluster has no RuntimeClass %q: make it, or name another in the estate (kubernetes, runtime_class)", o.RuntimeClass)
		}
	}
	return nil
}

// Check says what a driver of these options would lack. It changes nothing on the cluster.
func Check(ctx context.Context, o Options) error {
	client, _, err := connect(o.Kubeconfig)
	if err != nil {
		return err
	}
	return lacking(ctx, client, o)
}

// Server is the address that a driver of this kubeconfig dials.
func Server(kubeconfig string) (string, error) {
	c, err := config(kubeconfig)
	if err != nil {
		return "", err
	}
	u, err := url.Parse(c.Host)
	if err != nil {
		return "", err
	}
	return net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "443")), nil
}

// Authority is the SHA-256, in hex, of the first certificate by which the API server is believed; "": there is none but the system's.
func Authority(kubeconfig string) string {
	c, err := config(kubeconfig)
	if err != nil {
		return ""
	}
	pemText := c.CAData
	if c.CAFile != "" {
		if pemText, err = os.ReadFile(c.CAFile); err != nil {
			return ""
		}
	}
	block, _ := pem.Decode(pemText)
	if block == nil {
		return ""
	}
	sum := sha256.Sum256(block.Bytes)
	return hex.EncodeToString(sum[:])
}
