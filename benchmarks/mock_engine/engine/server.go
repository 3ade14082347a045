// Package engine is an OpenAI-compatible server without a model: chat, completions, embeddings,
// rerank. Answers, latencies and faults are functions of the request.
package engine

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"
)

const bodyBytesMax = 64 << 20

// Options of one engine.
type Options struct {
	Seed         uint64
	Model        string // the name in /v1/models; it answers under any
	Dim          int
	PerItem      time.Duration // added for each text of an embedding request
	AnswerTokens int
	Journal      io.Writer // the request id of every finished answer, a line each; nil for none
	RecordMax    int       // requests that GET /requests remembers
	Capacity     Capacity
	Plan         Plan
}

// A Plan is what POST /control changes at run time.
type Plan struct {
	Latency    string  `json:"latency"`
	FailRate   float64 `json:"fail_rate"`
	FailStatus int     `json:"fail_status"`
	Hang       bool    `json:"hang"` // answer nothing until this is false again
	drawn      Latency
}

// A Server answers; make it with New.
type Server struct {
	options Options
	plan    atomic.Pointer[Plan]
	ledger  *ledger
	desk    *desk
	routes  map[string]http.HandlerFunc
}

// New gives an engine, or says which option is wrong.
func New(options Options) (*Server, error) {
	if options.Dim < 1 || options.AnswerTokens < 1 || options.PerItem < 0 {
		return nil, fmt.Errorf("dim and answer-tokens must be at least 1, per-item at least 0")
	}
	if err := options.Capacity.check(); err != nil {
		return nil, err
	}
	s := &Server{options: options, ledger: newLedger(options.Journal, options.RecordMax), desk: newDesk(options.Capacity)}
	if err := s.follow(options.Plan); err != nil {
		return nil, err
	}
	s.routes = map[string]http.HandlerFunc{
		"GET /health":    func(w http.ResponseWriter, _ *http.Request) { reply(w, map[string]string{"status": "ok"}) },
		"GET /v1/models": s.models,
		"GET /stats":     func(w http.ResponseWriter, _ *http.Request) { reply(w, s.ledger.read()) },
		"GET /requests":  func(w http.ResponseWriter, _ *http.Request) { reply(w, s.ledger.requests()) },
		"POST /stats/reset": func(w http.ResponseWriter, _ *http.Request) {
			s.desk.forget()
			s.ledger.reset()
			reply(w, s.ledger.read())
		},
		"POST /control":             s.control,
		"POST /v1/chat/completions": s.generation(chat),
		"POST /v1/completions":      s.generation(completion),
		"POST /v1/embeddings":       s.generation(embeddings),
		"POST /v1/rerank":           s.generation(rerank),
	}
	return s, nil
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if handle, known := s.routes[r.Method+" "+r.URL.Path]; known {
		handle(w, r)
		return
	}
	refuse(w, http.StatusNotFound, "no such path: "+r.Method+" "+r.URL.Path)
}

func (s *Server) follow(plan Plan) (err error) {
	if plan.drawn, err = ParseLatency(plan.Latency); err != nil {
		return err
	}
	if plan.FailRate < 0 || plan.FailRate > 1 || plan.FailStatus < 400 || plan.FailStatus > 599 {
		return fmt.Errorf("fail_rate must be 0 to 1 and fail_status 400 to 599, got %g and %d",
			plan.FailRate, plan.FailStatus)
	}
	s.plan.Store(&plan)
	return nil
}

func (s *Server) control(w http.ResponseWriter, r *http.Request) {
	plan := *s.plan.Load()
	decoder := json.NewDecoder(r.Body)
	decoder.DisallowUnknownFields()
	err := decoder.Decode(&plan)
	if err == nil {
		err = s.follow(plan)
	}
	if err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	reply(w, plan)
}

// A job is one request for a generation, read and understood.
type job struct {
	texts  []string                  // a fault in any of them applies
	slots  []Fault                   // of the vectors, by place; only for embeddings
	prompt func() string             // nil where there is none
	tokens func(options Options) int // of the answer; nil where there are none
	digest key                       // of the texts: what the latency is drawn from
	keys   []key                     // of the texts that are embedded
	page   func(options Options, fault Fault) any
	stream func(options Options) []any // events; nil where none was asked for
}

// generation is the way of every request: read, fail as told, wait, answer, count.
func (s *Server) generation(read func([]byte) (*job, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, bodyBytesMax))
		var id *key
		if given := r.Header.Get("x-request-id"); given != "" {
			hashed := key(sha256.Sum256([]byte(given)))
			id = &hashed
			w.Header().Set("x-request-id", given)
		}
		e := s.ledger.begin(id, r.Header.Get("x-request-id"), int64(len(body)))
		e.record(r.URL.Path, r.Header, body)
		if err != nil {
			s.refused(w, e, http.StatusRequestEntityTooLarge, err.Error())
			return
		}
		asked, err := read(body)
		var fault Fault
		if err == nil {
			fault, err = s.faultOf(asked, e)
		}
		if err != nil {
			s.refused(w, e, http.StatusBadRequest, err.Error())
			return
		}
		s.answer(w, r, e, asked, fault)
	}
}

// faultOf decides what goes wrong with the request, and fills the faults of its slots.
func (s *Server) faultOf(asked *job, e *entry) (whole Fault, err error) {
	for place, text := range asked.texts {
		faults, err := parseFaults(text)
		if err != nil {
			return Fault{}, err
		}
		if len(faults) == 0 {
			continue
		}
		fault, applies := active(faults, s.ledger.see(sha256.Sum256([]byte(text))))
		if !applies {
			continue
		}
		s.ledger.fault(fault.Kind)
		if fault.ofSlot() && place < len(asked.slots) {
			asked.slots[place] = fault
		} else if whole.Kind == "" {
			whole = fault
		}
	}
	plan := s.plan.Load()
	named := asked.digest
	if e.id != nil {
		named = *e.id
	}
	if chance, _ := uniforms(s.options.Seed, named, "fail", e.attempt); whole.Kind == "" && chance < plan.FailRate {
		s.ledger.fault("rate")
		whole = Fault{Kind: "status", Status: plan.FailStatus}
	}
	return whole, nil
}

func (s *Server) answer(w http.ResponseWriter, r *http.Request, e *entry, asked *job, fault Fault) {
	if !s.wait(r.Context(), e, fault.Wait) {
		return
	}
	switch fault.Kind {
	case "status":
		if fault.RetryAfter != "" {
			w.Header().Set("retry-after", fault.RetryAfter)
		}
		s.refused(w, e, fault.Status, fmt.Sprintf("told to answer %d", fault.Status))
		return
	case "close":
		e.abort()
		panic(http.ErrAbortHandler) // net/http's way to drop a connection without an answer
	}
	if !s.desk.enter(r.Context()) {
		e.abort()
		return
	}
	defer s.desk.leave()
	if !s.prefill(r.Context(), e, asked) {
		return
	}
	e.drawn = s.plan.Load().drawn.Draw(s.options.Seed, asked.digest) +
		time.Duration(len(asked.keys))*s.options.PerItem
	if asked.tokens != nil {
		e.drawn += time.Duration(asked.tokens(s.options)) * s.desk.PerToken
	}
	if asked.stream != nil {
		s.stream(w, r, e, asked, fault)
		return
	}
	if s.wait(r.Context(), e, e.drawn) {
		s.whole(w, e, asked, fault)
	}
}

// wait says whether the time passed and the client is still there; it stops at once when not.
func (s *Server) wait(there context.Context, e *entry, time_ time.Duration) bool {
	for s.plan.Load().Hang {
		if !slept(there, 20*time.Millisecond) {
			e.abort()
			return false
		}
	}
	if time_ > 0 && !slept(there, time_) {
		e.abort()
		return false
	}
	return true
}

func slept(there context.Context, time_ time.Duration) bool {
	timer := time.NewTimer(time_)
	defer timer.Stop()
	select {
	case <-there.Done():
		return false
	case <-timer.C:
		return true
	}
}

func (s *Server) refused(w http.ResponseWriter, e *entry, status int, message string) {
	sent := refuse(w, status, message)
	e.end(func(l *ledger) {
		l.stats.Answers[strconv.Itoa(status)]++
		l.stats.BytesOut += int64(sent)
	})
}
