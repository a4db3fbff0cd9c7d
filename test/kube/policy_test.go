package kube

import (
	"context"
	"os"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"redoubt/compute/computetest"
	"redoubt/compute/image"
)

// Where the cluster's network enforces policies, that of a share denies what stands in its namespace without any wall of ours; and that alone.
func TestAPolicyThatIsEnforcedDenies(t *testing.T) {
	if os.Getenv("KUBE_POLICY") == "" {
		t.Skip("this cluster's network enforces none")
	}
	s, _, _ := theLab.programs().Service(t, "serve", "")
	begin(t, theLab.driver(t, theLab.options()), s) // so that there is a namespace
	k := client(t)
	pods, err := k.CoreV1().Pods("").List(t.Context(), metav1.ListOptions{LabelSelector: "redoubt/owner"})
	if err != nil || len(pods.Items) != 1 {
		t.Fatalf("%d pods, %v", len(pods.Items), err)
	}
	ours, program := pods.Items[0], imageOf(computetest.Build(t, "linux", "amd64"))
	if err := theLab.push("redoubt/program", program); err != nil { // where everybody may pull
		t.Fatal(err)
	}
	free, err := k.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "free-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.CoreV1().Namespaces().Delete(context.Background(), free.Name, metav1.DeleteOptions{}) })
	for namespace, verb := range map[string]string{free.Name: "dial", ours.Namespace: "shut"} { // a policy is enforced some time after a pod has begun
		want := int32(0)
		if verb == "dial" { // which does well where it is refused
			want = 1
		}
		pod := ours.Spec.Containers[0]
		no, user := false, int64(1<<20)
		p, err := k.CoreV1().Pods(namespace).Create(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "plain"}, Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, AutomountServiceAccountToken: &no,
			SecurityContext: &corev1.PodSecurityContext{RunAsNonRoot: pod.SecurityContext.RunAsNonRoot, RunAsUser: &user, SeccompProfile: pod.SecurityContext.SeccompProfile},
			Containers: []corev1.Container{{Name: "plain", Image: theLab.addr + "/redoubt/program@" + image.DigestOf(program.manifest).String(), Command: []string{"/program", verb, "10.77.0.1:6443"},
				Resources:       corev1.ResourceRequirements{Limits: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("64Mi"), corev1.ResourceCPU: resource.MustParse("1")}},
				SecurityContext: &corev1.SecurityContext{AllowPrivilegeEscalation: &no, Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}}}}}}, metav1.CreateOptions{})
		for deadline := time.Now().Add(time.Minute); err == nil && p.Status.Phase != corev1.PodFailed && p.Status.Phase != corev1.PodSucceeded && time.Now().Before(deadline); {
			time.Sleep(100 * time.Millisecond)
			p, err = k.CoreV1().Pods(namespace).Get(t.Context(), "plain", metav1.GetOptions{})
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(p.Status.ContainerStatuses) != 1 || p.Status.ContainerStatuses[0].State.Terminated == nil || p.Status.ContainerStatuses[0].State.Terminated.ExitCode != want {
			t.Errorf("%s in %s: %+v, want exit code %d", verb, namespace, p.Status.ContainerStatuses, want)
		}
	}
}
