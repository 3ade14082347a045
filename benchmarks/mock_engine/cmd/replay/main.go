// replay: requests at the moments that a plan names, one line of JSON each on standard input, and
// what came of each as a line on standard output, in the order of the plan:
//
//	{"at_s": 0.5, "url": "http://..", "headers": {..}, "body": {..}, "after": 3, "deadline_s": 1.5}
//	{"status": 200, "first_ms": 12.1, "took_ms": 80.5}
//
// at_s counts from the start and rises. A line with "after" is due at_s seconds after the line of that
// number (from 0) was answered, as the next turn of a conversation is; it stands after that line and
// before any that is due later than the first turn. With "deadline_s", x-sage-deadline-ms is set to so
// long after the request is due. Who is not answered within
// --grace of the last moment is left: status 0, took_ms until then.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"
	"time"

	"sage/mock-engine/load"
)

const lineBytesMax = 8 << 20

type line struct {
	AtS     float64           `json:"at_s"`
	URL     string            `json:"url"`
	Headers map[string]string `json:"headers"`
	Body    json.RawMessage   `json:"body"`
	After   *int              `json:"after"`
	WithinS float64           `json:"deadline_s"`
}

type told struct {
	Status  int     `json:"status"`
	FirstMs float64 `json:"first_ms"`
	TookMs  float64 `json:"took_ms"`
	Why     string  `json:"why,omitempty"`
}

func main() {
	grace := flag.Duration("grace", time.Minute, "how long the last ones are waited for")
	procs := flag.Int("procs", 1, "cores to use")
	flag.Parse()
	runtime.GOMAXPROCS(*procs)
	plan, err := read()
	if err != nil {
		fmt.Fprintln(os.Stderr, "replay:", err)
		os.Exit(2)
	}
	out := json.NewEncoder(os.Stdout)
	for _, o := range played(plan, *grace) {
		ms := func(d time.Duration) float64 { return d.Seconds() * 1000 }
		why := o.Error
		if len(o.Body) > 0 {
			why += string(o.Body)
		}
		if err := out.Encode(told{o.Status, ms(o.First), ms(o.Took), why}); err != nil {
			os.Exit(1)
		}
	}
}

func (l line) request(due time.Time) load.Request {
	headers := map[string]string{}
	for name, value := range l.Headers {
		headers[name] = value
	}
	if l.WithinS > 0 {
		deadline := due.Add(time.Duration(l.WithinS * float64(time.Second)))
		headers["x-sage-deadline-ms"] = strconv.FormatInt(deadline.UnixMilli(), 10)
	}
	return load.Request{URL: l.URL, Headers: headers, Body: l.Body}
}

func read() (plan []line, err error) {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(make([]byte, 1<<16), lineBytesMax)
	for lines.Scan() {
		var one line
		if err := json.Unmarshal(lines.Bytes(), &one); err != nil {
			return nil, fmt.Errorf("line %d: %w", len(plan), err)
		}
		if one.After != nil && (*one.After < 0 || *one.After >= len(plan)) {
			return nil, fmt.Errorf("line %d: after must name a line before it, got %d", len(plan), *one.After)
		}
		plan = append(plan, one)
	}
	return plan, lines.Err()
}

func played(plan []line, grace time.Duration) []load.Outcome {
	client, began := load.NewClient(10*time.Minute), time.Now()
	outcomes, done := make([]load.Outcome, len(plan)), make([]chan struct{}, len(plan))
	there, leave := context.WithCancel(context.Background())
	defer leave()
	var all sync.WaitGroup
	for i, one := range plan {
		done[i] = make(chan struct{})
		due := began
		if one.After == nil {
			due = began.Add(time.Duration(one.AtS * float64(time.Second)))
			time.Sleep(time.Until(due))
		}
		all.Add(1)
		go func() {
			defer all.Done()
			defer close(done[i])
			if one.After != nil {
				<-done[*one.After]
				due = time.Now().Add(time.Duration(one.AtS * float64(time.Second)))
				select {
				case <-time.After(time.Until(due)):
				case <-there.Done():
				}
			}
			outcomes[i] = load.Ask(there, client, one.request(due), due)
		}()
	}
	timer := time.AfterFunc(grace, leave)
	defer timer.Stop()
	all.Wait()
	return outcomes
}
