// The Go program: net/http and its graceful Shutdown. It takes the address to listen on as its only argument and ends at SIGTERM.
package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// The answer that takes a while takes this long.
const slowTime = 200 * time.Millisecond

func hello(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprint(w, "hello world")
}

func slow(w http.ResponseWriter, r *http.Request) {
	time.Sleep(slowTime)
	hello(w, r)
}

func main() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	mux := http.NewServeMux()
	mux.HandleFunc("/", hello)
	mux.HandleFunc("/slow", slow)
	server := &http.Server{Handler: mux}
	speakHTTP2(server)
	listener, err := net.Listen("tcp", os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Printf("listening %s\n", listener.Addr())
	go server.Serve(listener)
	<-signals
	if err := server.Shutdown(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
