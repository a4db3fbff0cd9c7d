package redoubttest

import (
	"net/http"
	"testing"
)

func TestAStackServesS3(t *testing.T) {
	s := New(t, Options{Seed: 1})
	m := s.Mint("s-analyst", "")
	put := s.Do(m, Request{Method: http.MethodPut, Bucket: "reports", Key: "a b/ü", Body: []byte("content")})
	if put.Status != http.StatusOK {
		t.Fatalf("put: %d %s", put.Status, put.Body)
	}
	get := s.Do(m, Request{Method: http.MethodGet, Bucket: "reports", Key: "a b/ü"})
	if get.Status != http.StatusOK || string(get.Body) != "content" || get.Header.Get("X-Amz-Meta-Redoubt-Label") != "SECRET" {
		t.Errorf("get: %d %q %v", get.Status, get.Body, get.Header)
	}
	low := s.Do(s.Mint("u-analyst", ""), Request{Method: http.MethodGet, Bucket: "reports", Key: "a b/ü"})
	if low.Status != http.StatusNotFound {
		t.Errorf("the low reader got %d", low.Status)
	}
}
