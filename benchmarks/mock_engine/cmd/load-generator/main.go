// load-generator: requests to one URL at a fixed concurrency (closed loop) for some seconds; one
// line of JSON with requests a second and latencies comes out. Closed loop only: for latencies at a
// given rate use an open loop.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"sort"
	"sync"
	"time"
)

type tally struct {
	latencies []time.Duration
	failed    int
}

func main() {
	url := flag.String("url", "", "such as http://127.0.0.1:8000/v1/chat/completions")
	kind := flag.String("kind", "chat", "chat | embed")
	clients := flag.Int("clients", 32, "requests in flight")
	bytes_ := flag.Int("bytes", 600, "length of a prompt")
	lasting := flag.Duration("duration", 5*time.Second, "")
	key := flag.String("key", "", "sent as a bearer token")
	model := flag.String("model", "mock", "")
	procs := flag.Int("procs", 1, "cores to use")
	flag.Parse()
	runtime.GOMAXPROCS(*procs)

	transport := &http.Transport{MaxIdleConnsPerHost: *clients, MaxConnsPerHost: *clients}
	client := &http.Client{Transport: transport, Timeout: time.Minute}
	tallies, began := make([]tally, *clients), time.Now()
	var all sync.WaitGroup
	for number := range tallies {
		all.Add(1)
		go func() {
			defer all.Done()
			for turn := 0; time.Since(began) < *lasting; turn++ {
				body := request(*kind, *model, number, turn, *bytes_)
				tallies[number].ask(client, *url, *key, body)
			}
		}()
	}
	all.Wait()
	report(tallies, time.Since(began))
}

func request(kind, model string, number, turn, length int) []byte {
	text := fmt.Sprintf("%d/%d %s", number, turn, bytes.Repeat([]byte("a"), length))
	page := map[string]any{"model": model, "input": text, "encoding_format": "base64"}
	if kind == "chat" {
		message := map[string]string{"role": "user", "content": text}
		page = map[string]any{"model": model, "messages": []any{message}, "max_tokens": 16}
	}
	body, _ := json.Marshal(page)
	return body
}

func (t *tally) ask(client *http.Client, url, key string, body []byte) {
	began := time.Now()
	request, err := http.NewRequest(http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	request.Header.Set("content-type", "application/json")
	if key != "" {
		request.Header.Set("authorization", "Bearer "+key)
	}
	response, err := client.Do(request)
	if err == nil {
		_, err = io.Copy(io.Discard, response.Body)
		_ = response.Body.Close()
	}
	if err != nil || response.StatusCode != http.StatusOK {
		t.failed++
		return
	}
	t.latencies = append(t.latencies, time.Since(began))
}

func report(tallies []tally, took time.Duration) {
	var latencies []time.Duration
	failed := 0
	for _, t := range tallies {
		latencies = append(latencies, t.latencies...)
		failed += t.failed
	}
	sort.Slice(latencies, func(a, b int) bool { return latencies[a] < latencies[b] })
	page := map[string]any{"seconds": took.Seconds(), "answered": len(latencies), "failed": failed}
	if len(latencies) > 0 {
		page["requests_per_s"] = float64(len(latencies)) / took.Seconds()
		page["p50_ms"] = latencies[len(latencies)/2].Seconds() * 1000
		page["p99_ms"] = latencies[len(latencies)*99/100].Seconds() * 1000
	}
	_ = json.NewEncoder(os.Stdout).Encode(page)
}
