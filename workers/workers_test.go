package workers

import (
	"reflect"
	"testing"

	"redoubt"
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
