package main

import (
	"encoding/base64"
	"encoding/json"
	"strings"
)

// registryUser is the name that clients of images log in with. Any will do: the token says who they are.
const registryUser = "redoubt"

// envRegistry is where a client of images finds the registry, whatever the client.
func envRegistry(s *session) string {
	host, _ := hostOf(s.at.api)
	return exports("REDOUBT_REGISTRY", host)
}

// login gives a client the token on its standard input: printf is the shell's own, so the token stands in no list of processes.
func login(s *session, command ...string) string {
	host, _ := hostOf(s.at.api)
	line := "printf %s " + shellQuote(s.minted.Token) + " |"
	for _, word := range append(command, "--username", registryUser, "--password-stdin", host) {
		line += " " + shellQuote(word)
	}
	return line + "\n"
}

// envDocker logs docker in. Its daemon, which runs as root, wants the certificate of the CA in a place of its own, but for a registry on a loopback
// address, which it does not hold to one.
func envDocker(s *session) string {
	host, https := hostOf(s.at.api)
	var b strings.Builder
	if https && s.at.caFile != "" {
		dir := shellQuote("/etc/docker/certs.d/" + host)
		b.WriteString("# once, as root, where the registry is not on this machine:\n#   mkdir -p " + dir + " && cp " + shellQuote(s.at.caFile) + " " + dir + "/ca.crt\n")
	}
	return b.String() + login(s, "docker", "login") + envRegistry(s)
}

// envContainers logs in one of those that read containers-certs.d(5): podman, skopeo, buildah.
func envContainers(command string) func(*session) string {
	return func(s *session) string {
		host, https := hostOf(s.at.api)
		words := []string{command, "login"}
		if !https {
			return login(s, append(words, "--tls-verify=false")...) + envRegistry(s)
		}
		if s.at.caFile == "" {
			return login(s, words...) + envRegistry(s)
		}
		dir := `"$HOME"/` + shellQuote(".config/containers/certs.d/"+host)
		return "mkdir -p " + dir + " && cp " + shellQuote(s.at.caFile) + " " + dir + "/ca.crt\n" + login(s, words...) + envRegistry(s)
	}
}

// envCrane logs crane in, and every client in Go that reads docker's configuration: oras, cosign, ko.
func envCrane(s *session) string {
	_, https := hostOf(s.at.api)
	trust := ""
	if https {
		trust = exports("SSL_CERT_FILE", s.at.caFile)
	}
	return trust + login(s, "crane", "auth", "login") + envRegistry(s)
}

// envKubectl makes the secret that imagePullSecrets names. How a cluster's machines trust the CA is containerd's matter.
func envKubectl(s *session) string {
	host, https := hostOf(s.at.api)
	doc, err := json.Marshal(map[string]any{"auths": map[string]any{host: map[string]string{
		"auth": base64.StdEncoding.EncodeToString([]byte(registryUser + ":" + s.minted.Token))}}})
	if err != nil {
		return "" // plain fields marshal
	}
	var b strings.Builder
	if https && s.at.caFile != "" {
		b.WriteString("# once, as root, on each machine of the cluster, with " + shellQuote(s.at.caFile) + " copied to ca.crt:\n" +
			"#   mkdir -p " + shellQuote("/etc/containerd/certs.d/"+host) + " && cp ca.crt " + shellQuote("/etc/containerd/certs.d/"+host) + "/ &&\n" +
			"#   printf '[host.\"https://" + host + "\"]\\n  ca = \"ca.crt\"\\n' > " + shellQuote("/etc/containerd/certs.d/"+host+"/hosts.toml") + "\n")
	}
	b.WriteString("printf %s " + shellQuote(string(doc)) + " | kubectl create secret generic redoubt --type=kubernetes.io/dockerconfigjson --from-file=.dockerconfigjson=/dev/stdin\n")
	return b.String() + envRegistry(s)
}
