// net/http with its graceful Shutdown, as in its documentation, and with a limit: after it the
// connections that are left are closed.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const drain = 5 * time.Second

func number(r *http.Request, name string) int {
	value, _ := strconv.Atoi(r.URL.Query().Get(name))
	return value
}

func hello(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/" {
		http.NotFound(w, r)
		return
	}
	fmt.Fprint(w, "hello world")
}

func slow(w http.ResponseWriter, r *http.Request) {
	select {
	case <-time.After(time.Duration(number(r, "ms")) * time.Millisecond):
		fmt.Fprint(w, "slow")
	case <-r.Context().Done():
	}
}

func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Write(body)
}

func stream(w http.ResponseWriter, r *http.Request) {
	for left := number(r, "ms"); left > 0; left -= 50 {
		select {
		case <-time.After(50 * time.Millisecond):
			fmt.Fprintln(w, "piece")
			w.(http.Flusher).Flush()
		case <-r.Context().Done():
			// What was cut must not look complete.
			panic(http.ErrAbortHandler)
		}
	}
}

func big(w http.ResponseWriter, r *http.Request) {
	left := number(r, "bytes")
	w.Header().Set("Content-Length", strconv.Itoa(left))
	chunk := make([]byte, 64*1024)
	for left > 0 {
		if left < len(chunk) {
			chunk = chunk[:left]
		}
		n, err := w.Write(chunk)
		if err != nil {
			return
		}
		left -= n
	}
}

// The upgraded connections: "Shutdown does not attempt to close nor wait for hijacked connections
// such as WebSockets. The caller of Shutdown should separately notify such long-lived connections
// of shutdown and wait for them to close, if desired."
var (
	mutex    sync.Mutex
	hijacked []net.Conn
)

func upgrade(w http.ResponseWriter, r *http.Request) {
	if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		http.Error(w, "expected an upgrade", http.StatusUpgradeRequired)
		return
	}
	connection, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	mutex.Lock()
	hijacked = append(hijacked, connection)
	mutex.Unlock()
	fmt.Fprint(connection, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	io.Copy(io.Discard, connection)
}

func main() {
	mux := http.NewServeMux()
	mux.HandleFunc("/", hello)
	mux.HandleFunc("/slow", slow)
	mux.HandleFunc("/echo", echo)
	mux.HandleFunc("/stream", stream)
	mux.HandleFunc("/big", big)
	mux.HandleFunc("/ws", upgrade)
	server := &http.Server{Addr: "127.0.0.1:" + os.Getenv("PORT"), Handler: mux}
	speakHTTP2(server)
	server.RegisterOnShutdown(func() {
		mutex.Lock()
		defer mutex.Unlock()
		for _, connection := range hijacked {
			connection.Close()
		}
	})

	stopped := make(chan struct{})
	go func() {
		signals := make(chan os.Signal, 1)
		signal.Notify(signals, syscall.SIGTERM)
		<-signals
		limit, cancel := context.WithTimeout(context.Background(), drain)
		defer cancel()
		if err := server.Shutdown(limit); err != nil {
			server.Close()
		}
		close(stopped)
	}()
	if err := server.ListenAndServe(); err != http.ErrServerClosed {
		log.Fatal(err)
	}
	<-stopped
}
