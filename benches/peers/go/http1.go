//go:build !go1.24

package main

import "net/http"

// Before Go 1.24 net/http speaks HTTP/2 only through TLS.
func speakHTTP2(*http.Server) {}
