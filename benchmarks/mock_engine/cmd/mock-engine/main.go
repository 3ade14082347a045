// mock-engine: an OpenAI-compatible server whose answers, latencies and faults are functions of the
// request. The one mock of the project: for benchmarks, drills and conformance tests.
//
// It prints one line, {"url": "http://127.0.0.1:PORT"}, when it listens (loopback only), and ends
// on SIGTERM.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"sage/mock-engine/engine"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("mock-engine: ")
	port := flag.Int("port", 0, "port on 127.0.0.1; 0 takes a free one")
	seed := flag.Uint64("seed", 1, "of latencies and of the global fault rate")
	model := flag.String("model", "mock", "the name in /v1/models; it answers under any")
	latency := flag.String("latency", "none", "none | constant:20ms | lognormal:MEAN:SIGMA")
	perItem := flag.Duration("per-item", 0, "added to an embedding request's latency for each text")
	dim := flag.Int("dim", 384, "of the vectors")
	tokens := flag.Int("answer-tokens", 16, "length of an answer, unless max_tokens is less")
	slots := flag.Int("slots", 0, "requests computed at a time, the others wait; 0 is any number")
	perPrompt := flag.Duration("per-prompt-token", 0, "added for each token of a prompt that is not cached")
	perToken := flag.Duration("per-token", 0, "added for each token of an answer")
	cache := flag.Int("cache-tokens", 0, "of prompts' beginnings that are remembered")
	failRate := flag.Float64("fail-rate", 0, "share of requests that fail, 0 to 1")
	failStatus := flag.Int("fail-status", 500, "what those answer with")
	record := flag.Int("record", 0, "how many requests GET /requests remembers, bodies and all")
	procs := flag.Int("procs", 1, "cores to use")
	journal := flag.String("journal", "", "file to append each finished answer's x-request-id to")
	parent := flag.Int("parent", 0, "end when this process is no longer the parent")
	flag.Parse()

	runtime.GOMAXPROCS(*procs)
	plan := engine.Plan{Latency: *latency, FailRate: *failRate, FailStatus: *failStatus}
	server, err := engine.New(engine.Options{
		Seed: *seed, Model: *model, Dim: *dim, PerItem: *perItem, AnswerTokens: *tokens,
		RecordMax: *record, Journal: appended(*journal), Plan: plan,
		Capacity: engine.Capacity{Slots: *slots, PerPrompt: *perPrompt, PerToken: *perToken, CacheTokens: *cache}})
	if err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", *port))
	if err != nil {
		log.Fatal(err)
	}
	go endWith(*parent)
	// Nobody reads a log of dropped connections: they are what was asked for.
	quiet := &http.Server{Handler: server, ErrorLog: log.New(io.Discard, "", 0)}
	go func() { log.Fatal(quiet.Serve(listener)) }()
	ready, _ := json.Marshal(map[string]string{"url": "http://" + listener.Addr().String()})
	fmt.Println(string(ready))

	ends := make(chan os.Signal, 1)
	signal.Notify(ends, syscall.SIGTERM, syscall.SIGINT)
	<-ends
}

// appended opens the journal, which outlives this process; nil for no name.
func appended(name string) io.Writer {
	if name == "" {
		return nil
	}
	file, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		log.Fatal(err)
	}
	return file
}

// endWith ends this process within a second of its parent, whatever ended that.
func endWith(parent int) {
	for parent != 0 {
		if os.Getppid() != parent {
			os.Exit(0)
		}
		time.Sleep(time.Second)
	}
}
