package estate

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

func TestTheClusterOfANodeIsReadAndSigned(t *testing.T) {
	agent := "registry.example:5000/redoubt/agent@sha256:" + strings.Repeat("a", 64)
	read := func(section string) *Estate {
		t.Helper()
		text := strings.Replace(fmt.Sprintf(real, 1, public(1), public(2)), "\npeople:", "\n"+section+"\npeople:", 1)
		e, err := Read([]byte(text), nil)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	if e := read(""); e.Nodes[0].Kubernetes != nil || bytes.Contains(e.Canonical(), []byte("kubernetes")) {
		t.Errorf("without one: %+v", e.Nodes[0].Kubernetes)
	}
	e := read("    kubernetes: {kubeconfig: /etc/redoubt/cluster, runtime_class: none, agent: \"" + agent + "\", registry: \"10.0.0.5:7443\"}")
	if got, want := *e.Nodes[0].Kubernetes, (Kubernetes{Kubeconfig: "/etc/redoubt/cluster", RuntimeClass: NoRuntimeClass, Agent: agent, Registry: "10.0.0.5:7443"}); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	e = read("    kubernetes: {kubeconfig: /etc/redoubt/cluster, runtime_class: gvisor, agent: \"" + agent + "\", registry: \"10.0.0.5:7443\", token: /etc/redoubt/pull, priority_class: low, machines: {example.net/level: secret}, annotate: true, volumes: disk, pods: 1000}")
	if !bytes.Contains(e.Canonical(), []byte(`"kubernetes":{"kubeconfig":"/etc/redoubt/cluster","runtime_class":"gvisor","agent":"`+agent+`","registry":"10.0.0.5:7443","token":"/etc/redoubt/pull","priority_class":"low","machines":{"example.net/level":"secret"},"annotate":true,"disk":true,"pods":1000}`)) {
		t.Errorf("the signature does not cover it: %s", e.Canonical())
	}
}
