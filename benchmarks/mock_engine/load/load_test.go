package load

import (
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"
)

// slow answers one request at a time, each after a pause.
func slow(t *testing.T, pause time.Duration) Request {
	t.Helper()
	var turn sync.Mutex
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		turn.Lock()
		defer turn.Unlock()
		time.Sleep(pause)
		_, _ = w.Write([]byte("{}"))
	}))
	t.Cleanup(server.Close)
	return Request{URL: server.URL, Body: []byte("{}")}
}

func TestAnOpenLoopCountsTheWaitOfThoseThatAServerKeepsWaiting(t *testing.T) {
	request := slow(t, 20*time.Millisecond)
	requests, dues := make([]Request, 10), make([]time.Duration, 10)
	for i := range requests {
		requests[i], dues[i] = request, time.Duration(i)*2*time.Millisecond
	}

	outcomes := Timed(NewClient(time.Minute), requests, dues, time.Minute)

	var last time.Duration
	for _, o := range outcomes {
		if o.Status != 200 {
			t.Fatalf("%+v", o)
		}
		last = max(last, o.Took)
	}
	// Ten turns of 20 ms, the last of them due after 18 ms.
	if last < 170*time.Millisecond {
		t.Fatalf("the longest took %v", last)
	}
}

func TestWhoIsNotAnsweredInTimeIsLeftAndCountsUntilThen(t *testing.T) {
	request := slow(t, 300*time.Millisecond)

	outcomes := Timed(NewClient(time.Minute), []Request{request}, []time.Duration{0}, 50*time.Millisecond)

	if o := outcomes[0]; o.Status != 0 || o.Error == "" || o.Took < 50*time.Millisecond || o.Took > 250*time.Millisecond {
		t.Fatalf("%+v", o)
	}
}

func TestAClosedLoopAsksAgainOnceItIsAnswered(t *testing.T) {
	request := slow(t, 5*time.Millisecond)

	outcomes := Closed(NewClient(time.Minute), 3, 100*time.Millisecond, func(_, _ int) Request { return request })

	if len(outcomes) < 5 || len(outcomes) > 30 {
		t.Fatalf("%d requests", len(outcomes))
	}
}

func TestARefusalKeepsWhatItSays(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "busy", http.StatusTooManyRequests)
	}))
	defer server.Close()

	o := Closed(NewClient(time.Minute), 1, time.Millisecond, func(_, _ int) Request { return Request{URL: server.URL} })[0]

	if o.Status != 429 || string(o.Body) != "busy\n" {
		t.Fatalf("%+v", o)
	}
}
