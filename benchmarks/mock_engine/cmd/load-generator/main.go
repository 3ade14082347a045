// load-generator: requests to one URL for some seconds, at a fixed concurrency (closed loop) or a
// fixed rate (open loop, Poisson arrivals; latencies count from when a request was due). One line of
// JSON with requests a second and latencies comes out.
package main

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime"
	"sort"
	"time"

	"sage/mock-engine/load"
)

func main() {
	url := flag.String("url", "", "such as http://127.0.0.1:8000/v1/chat/completions")
	kind := flag.String("kind", "chat", "chat | embed")
	clients := flag.Int("clients", 32, "requests in flight, of a closed loop")
	rate := flag.Float64("rate", 0, "requests a second, for an open loop instead")
	stream := flag.Bool("stream", false, "ask for the answer in events")
	ids := flag.Bool("ids", false, "send an x-request-id of 32 hex digits with each")
	length := flag.Int("bytes", 600, "length of a prompt")
	lasting := flag.Duration("duration", 5*time.Second, "")
	seed := flag.Uint64("seed", 1, "of the moments of an open loop")
	key := flag.String("key", "", "sent as a bearer token")
	model := flag.String("model", "mock", "")
	procs := flag.Int("procs", 1, "cores to use")
	flag.Parse()
	runtime.GOMAXPROCS(*procs)

	filler := bytes.Repeat([]byte("a"), *length)
	next := func(client, turn int) load.Request {
		made := load.Request{URL: *url, Headers: map[string]string{}}
		made.Body = body(*kind, *model, fmt.Sprintf("%d/%d %s", client, turn, filler), *stream)
		if *key != "" {
			made.Headers["authorization"] = "Bearer " + *key
		}
		if *ids {
			made.Headers["x-request-id"] = id()
		}
		return made
	}
	client, began := load.NewClient(time.Minute), time.Now()
	var outcomes []load.Outcome
	if *rate > 0 {
		outcomes = load.Open(client, *rate, *lasting, *seed, next)
	} else {
		outcomes = load.Closed(client, *clients, *lasting, next)
	}
	report(outcomes, time.Since(began))
}

func body(kind, model, text string, stream bool) []byte {
	page := map[string]any{"model": model, "input": text, "encoding_format": "base64"}
	if kind == "chat" {
		message := map[string]string{"role": "user", "content": text}
		page = map[string]any{"model": model, "messages": []any{message}, "max_tokens": 16}
		if stream {
			page["stream"] = true
		}
	}
	made, _ := json.Marshal(page)
	return made
}

func id() string {
	var made [16]byte
	_, _ = rand.Read(made[:])
	return hex.EncodeToString(made[:])
}

func report(outcomes []load.Outcome, took time.Duration) {
	var whole, first []time.Duration
	why := ""
	for _, o := range outcomes {
		if o.Status != 200 {
			why = fmt.Sprintf("%d %s %s", o.Status, o.Error, o.Body)
			continue
		}
		whole, first = append(whole, o.Took), append(first, o.First)
	}
	page := map[string]any{"seconds": took.Seconds(), "answered": len(whole), "failed": len(outcomes) - len(whole)}
	if why != "" {
		page["why"] = why
	}
	if len(whole) > 0 {
		page["requests_per_s"] = float64(len(whole)) / took.Seconds()
		page["p50_ms"], page["p99_ms"] = quantile(whole, 50), quantile(whole, 99)
		page["ttft_ms_p50"], page["ttft_ms_p99"] = quantile(first, 50), quantile(first, 99)
	}
	if err := json.NewEncoder(os.Stdout).Encode(page); err != nil {
		os.Exit(1)
	}
}

func quantile(times []time.Duration, percent int) float64 {
	sort.Slice(times, func(a, b int) bool { return times[a] < times[b] })
	return times[len(times)*percent/100].Seconds() * 1000
}
