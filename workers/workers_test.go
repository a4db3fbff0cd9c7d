package workers

import (
	"bytes"
	"log/slog"
	"reflect"
	"strings"
	"testing"

	"redoubt"
	"redoubt/compute"
	"redoubt/compute/kube"
	"redoubt/estate"
)

func TestOnlyANodeThatTheEstateGivesAClusterHasOne(t *testing.T) {
	e := &estate.Estate{Name: "north"}
	if o, ok := Cluster(e, estate.Node{Name: "secret"}); ok {
		t.Errorf("got %+v without one", o)
	}
	images := &redoubt.ImagePolicy{}
	got, ok := Cluster(e, estate.Node{Name: "secret", Images: images, Kubernetes: &estate.Kubernetes{Kubeconfig: "/k", RuntimeClass: estate.NoRuntimeClass, Agent: "a", Registry: "r", Token: "/t",
		PriorityClass: "p", Machines: map[string]string{"level": "secret"}, Annotate: true, Disk: true, Pods: 3}})
	want := kube.Options{Kubeconfig: "/k", RuntimeClass: kube.NoRuntimeClass, Agent: "a", Registry: "r", Token: "/t", Owner: "north/secret",
		PriorityClass: "p", Machines: map[string]string{"level": "secret"}, Annotate: true, Disk: true, Pods: 3, Images: images}
	if !ok || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// TestABuiltInBinaryThatCannotBeUsedIsToldOf, and modules have a driver all the same.
func TestABuiltInBinaryThatCannotBeUsedIsToldOf(t *testing.T) {
	built = "of another machine"
	var log bytes.Buffer
	drivers, _, err := Drivers(&estate.Estate{}, estate.Node{}, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil || drivers[compute.DriverWasm] == nil {
		t.Fatalf("got %v and %v", drivers, err)
	}
	if !strings.Contains(log.String(), "the binary that was built in to run them cannot be used") {
		t.Errorf("the log says %q", log.String())
	}
}
