//go:build go1.24

package main

import "net/http"

// HTTP/2 without TLS, which net/http has since Go 1.24.
func speakHTTP2(server *http.Server) {
	server.Protocols = new(http.Protocols)
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
}
