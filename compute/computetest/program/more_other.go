//go:build !linux

package main

func more() map[string]func(string) error { return nil }
