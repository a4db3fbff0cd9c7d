package main

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"redoubt"
)

func (a *app) envCommand() *cobra.Command {
	var w who
	var form string
	c := &cobra.Command{Use: "env SUBJECT@NODE", Short: "A fresh credential, as lines for the shell or as a client's settings",
		Long: `Makes a credential at a working label with the subject's own key, and prints what a client of objects (S3) or of
container images (OCI) needs. What is printed holds secrets: it goes to your shell and is kept nowhere; what a client of
images logs in with, it keeps in its own file until it logs out.

  --client aws      environment of aws-cli and every AWS SDK (the default)
  --client rclone   environment; the remote is called redoubt
  --client s3cmd    a configuration file for s3cmd -c
  --client minio    environment of mc and minio-go; the alias is called redoubt
  --client curl     a configuration file for curl -K

  --client docker   logs docker in: images are $REDOUBT_REGISTRY/BUCKET/NAME:TAG
  --client podman   the same for podman, and trusts the node's CA
  --client skopeo   the same for skopeo
  --client crane    the same for crane, oras and cosign
  --client kubectl  makes the secret "redoubt", for imagePullSecrets`,
		Example: `  eval "$(redoubt env s-analyst@secret)" && aws s3 ls s3://reports
  eval "$(redoubt env s-analyst@secret --label "SECRET//REL TO USA, GBR" --client rclone)" && rclone ls redoubt:reports
  redoubt env u-analyst@unclass --client s3cmd > s3cmd.conf
  curl -K <(redoubt env u-analyst@unclass --client curl) "$AWS_ENDPOINT_URL/reports/gettysburg.txt"
  eval "$(redoubt env s-analyst@secret --client skopeo)"
  skopeo copy oci:./tool "docker://$REDOUBT_REGISTRY/reports/tool:v1"`,
		Args: exactly(1), RunE: func(cmd *cobra.Command, args []string) error {
			w.as = args[0]
			print, ok := envForms[form]
			if !ok {
				return usage(cmd, "--client wants aws, rclone, s3cmd, minio, curl, docker, podman, skopeo, crane or kubectl")
			}
			if w.life == 0 {
				w.life = redoubt.DefaultCredentialLife
			}
			s, err := a.open(cmd.Context(), w)
			if err != nil {
				return err
			}
			defer s.close()
			a.say("%s at %s until %s", s.subject, s.minted.Label, s.minted.Expires.Local().Format("2006-01-02 15:04"))
			_, err = fmt.Fprint(a.out, print(s))
			return err
		}}
	w.far.objects = true
	w.moreFlags(c)
	c.Flags().DurationVar(&w.life, "life", 0, "how `long` the credential lives, to 168h (default 12h)")
	c.Flags().StringVar(&form, "client", "aws", "`client` to print settings for")
	return c
}

var envForms = map[string]func(*session) string{"aws": envAWS, "rclone": envRclone, "s3cmd": envS3cmd, "minio": envMinio, "curl": envCurl,
	"docker": envDocker, "podman": envContainers("podman"), "skopeo": envContainers("skopeo"), "crane": envCrane, "kubectl": envKubectl}

// exports renders lines for any POSIX shell.
func exports(pairs ...string) string {
	var b strings.Builder
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			fmt.Fprintf(&b, "export %s=%s\n", pairs[i], shellQuote(pairs[i+1]))
		}
	}
	return b.String()
}

// shellQuote quotes what is not plainly safe.
func shellQuote(s string) string {
	safe := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_-./:@%+,", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !safe(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

func envAWS(s *session) string {
	return exports("AWS_ENDPOINT_URL", s.at.s3, "AWS_ACCESS_KEY_ID", s.minted.AccessKeyID, "AWS_SECRET_ACCESS_KEY", s.minted.SecretAccessKey,
		"AWS_REGION", s.minted.Region, "AWS_DEFAULT_REGION", s.minted.Region, "AWS_CA_BUNDLE", s.at.caFile,
		"REDOUBT_API_URL", s.at.api, "REDOUBT_TOKEN", s.minted.Token)
}

func envRclone(s *session) string {
	const p = "RCLONE_CONFIG_REDOUBT_"
	// rclone refuses to work beside AWS_CA_BUNDLE, which another client may have left in the environment.
	return "unset AWS_CA_BUNDLE\n" + exports(p+"TYPE", "s3", p+"PROVIDER", "Other", p+"ENV_AUTH", "false", p+"ACCESS_KEY_ID", s.minted.AccessKeyID,
		p+"SECRET_ACCESS_KEY", s.minted.SecretAccessKey, p+"ENDPOINT", s.at.s3, p+"REGION", s.minted.Region,
		p+"FORCE_PATH_STYLE", "true", p+"NO_CHECK_BUCKET", "true", "RCLONE_CA_CERT", s.at.caFile)
}

func envS3cmd(s *session) string {
	host, https := hostOf(s.at.s3)
	lines := []string{"[default]", "access_key = " + s.minted.AccessKeyID, "secret_key = " + s.minted.SecretAccessKey,
		"host_base = " + host, "host_bucket = " + host, "bucket_location = " + s.minted.Region, "signature_v2 = False",
		"use_https = " + map[bool]string{true: "True", false: "False"}[https], "check_ssl_certificate = True", "check_ssl_hostname = True"}
	if s.at.caFile != "" {
		lines = append(lines, "ca_certs_file = "+s.at.caFile)
	}
	return strings.Join(lines, "\n") + "\n"
}

func envMinio(s *session) string {
	host, https := hostOf(s.at.s3)
	scheme := map[bool]string{true: "https", false: "http"}[https]
	alias := scheme + "://" + url.UserPassword(s.minted.AccessKeyID, s.minted.SecretAccessKey).String() + "@" + host
	return exports("MC_HOST_redoubt", alias, "MINIO_ENDPOINT", host, "MINIO_ACCESS_KEY", s.minted.AccessKeyID,
		"MINIO_SECRET_KEY", s.minted.SecretAccessKey, "MINIO_REGION", s.minted.Region, "SSL_CERT_FILE", s.at.caFile)
}

func envCurl(s *session) string {
	lines := []string{"aws-sigv4 = " + curlQuote("aws:amz:"+s.minted.Region+":s3"), "user = " + curlQuote(s.minted.AccessKeyID+":"+s.minted.SecretAccessKey),
		`header = "x-amz-content-sha256: UNSIGNED-PAYLOAD"`} // TLS protects the content; curl cannot hash a stream beforehand
	if s.at.caFile != "" {
		lines = append(lines, "cacert = "+curlQuote(s.at.caFile))
	}
	return strings.Join(lines, "\n") + "\n"
}

func curlQuote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

func hostOf(address string) (host string, https bool) {
	u, err := url.Parse(address)
	if err != nil {
		return address, true // an address of our own, which parses
	}
	return u.Host, u.Scheme == "https"
}
