//go:build !go1.24

package main

import "net/http"

func speakHTTP2(*http.Server) {}
