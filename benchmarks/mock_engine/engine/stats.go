package engine

import (
	"io"
	"strings"
	"sync"
	"time"
)

// Stats is what GET /stats answers: all since the start or the last POST /stats/reset. Times are
// seconds, moments are seconds since the epoch.
type Stats struct {
	Requests           int            `json:"requests"`
	Answers            map[string]int `json:"answers"` // by status
	Faults             map[string]int `json:"faults"`  // by kind
	Generations        int            `json:"generations"`
	RepeatedGeneration int            `json:"repeated_generations"` // same x-request-id, finished before
	DistinctIDs        int            `json:"distinct_request_ids"`
	ItemsEmbedded      int            `json:"items_embedded"`
	RepeatedItems      int            `json:"repeated_items"` // same text, embedded before
	Aborted            int            `json:"aborted"`        // the client hung up, or the script did
	InFlight           int            `json:"in_flight"`
	InFlightPeak       int            `json:"in_flight_peak"`
	BusySlotS          float64        `json:"busy_slot_s"`     // measured, of all requests
	LatencyDrawnS      float64        `json:"latency_drawn_s"` // as planned, of finished answers
	PromptTokens       int            `json:"prompt_tokens"`   // prefilled, of an engine that takes time for them
	CachedTokens       int            `json:"cached_tokens"`   // of those, known from before
	BytesIn            int64          `json:"bytes_in"`
	BytesOut           int64          `json:"bytes_out"`
	FirstRequestAt     float64        `json:"first_request_at"`
	LastAnswerAt       float64        `json:"last_answer_at"`
}

// A key is a hash of a request id or of a text.
type key [32]byte

type ledger struct {
	mu       sync.Mutex
	stats    Stats
	attempts map[key]int  // requests by id
	finished map[key]bool // ids with a finished answer
	embedded map[key]bool // texts with a vector
	seen     map[key]int  // texts that carry a fault
	journal  io.Writer    // a line with the id for each finished answer; nil for none
	log      []*Request   // the first requests, as many as asked for
	logMax   int
	epoch    int // grows with each reset: requests from before it are not counted
}

func newLedger(journal io.Writer, logMax int) *ledger {
	l := &ledger{journal: journal, logMax: logMax}
	l.reset()
	return l
}

// reset forgets everything, faults' counts too; requests in flight go on uncounted.
func (l *ledger) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stats = Stats{Answers: map[string]int{}, Faults: map[string]int{}}
	l.attempts, l.finished = map[key]int{}, map[key]bool{}
	l.embedded, l.seen = map[key]bool{}, map[key]int{}
	l.log = nil
	l.epoch++
}

// read gives a copy.
func (l *ledger) read() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	copied := l.stats
	copied.Answers, copied.Faults = clone(l.stats.Answers), clone(l.stats.Faults)
	copied.DistinctIDs = len(l.attempts)
	return copied
}

func clone(counts map[string]int) map[string]int {
	copied := make(map[string]int, len(counts))
	for name, count := range counts {
		copied[name] = count
	}
	return copied
}

// A Request is one of those that GET /requests answers, where the engine was told to record them.
// Moments are seconds since the epoch; ended is 0 while it is in flight.
type Request struct {
	Path    string            `json:"path"`
	Headers map[string]string `json:"headers"` // names in lower case, the first value of each
	Body    string            `json:"body"`
	Began   float64           `json:"began"`
	Ended   float64           `json:"ended"`
}

// record keeps the request while there is room.
func (e *entry) record(path string, headers map[string][]string, body []byte) {
	l := e.ledger
	if l.logMax == 0 {
		return // benchmarks: not a lock more than needed
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.log) >= l.logMax || e.epoch != l.epoch {
		return
	}
	e.logged = &Request{Path: path, Headers: map[string]string{}, Body: string(body), Began: seconds(e.began)}
	for name, values := range headers {
		e.logged.Headers[strings.ToLower(name)] = values[0]
	}
	l.log = append(l.log, e.logged)
}

func (l *ledger) requests() []Request {
	l.mu.Lock()
	defer l.mu.Unlock()
	copied := make([]Request, len(l.log))
	for i, request := range l.log {
		copied[i] = *request
	}
	return copied
}

// An entry is one request in the ledger, from begin to end.
type entry struct {
	ledger  *ledger
	epoch   int
	began   time.Time
	id      *key   // nil where the request has none
	name    string // the id as it was given
	drawn   time.Duration
	attempt int // this request's number among those of its id
	logged  *Request
}

func (l *ledger) begin(id *key, name string, bytesIn int64) *entry {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	e := &entry{ledger: l, epoch: l.epoch, began: now, id: id, name: name, attempt: 1}
	if l.stats.Requests == 0 {
		l.stats.FirstRequestAt = seconds(now)
	}
	l.stats.Requests++
	l.stats.BytesIn += bytesIn
	l.stats.InFlight++
	l.stats.InFlightPeak = max(l.stats.InFlightPeak, l.stats.InFlight)
	if id != nil {
		l.attempts[*id]++
		e.attempt = l.attempts[*id]
	}
	return e
}

// see counts that a text with a fault came, and gives how often it has.
func (l *ledger) see(text key) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen[text]++
	return l.seen[text]
}

func (l *ledger) prefilled(tokens, cached int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stats.PromptTokens += tokens
	l.stats.CachedTokens += cached
}

func (l *ledger) fault(kind string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stats.Faults[kind]++
}

// end closes the entry; change adds what came of it. Call it once.
func (e *entry) end(change func(*ledger)) {
	now := time.Now()
	l := e.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.epoch != l.epoch {
		return
	}
	if e.logged != nil {
		e.logged.Ended = seconds(now)
	}
	l.stats.InFlight--
	l.stats.BusySlotS += now.Sub(e.began).Seconds()
	l.stats.LastAnswerAt = seconds(now)
	change(l)
}

func (e *entry) abort() { e.end(func(l *ledger) { l.stats.Aborted++ }) }

func seconds(t time.Time) float64 { return float64(t.UnixMicro()) / 1e6 }
