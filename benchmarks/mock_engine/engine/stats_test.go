package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"math"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

func TestAClientThatHangsUpStopsItsRequestAtOnce(t *testing.T) {
	c := started(t, Plan{})
	there, hangUp := context.WithCancel(context.Background())
	body, _ := json.Marshal(asking("[[hang=60s]]"))
	request, _ := http.NewRequestWithContext(there, http.MethodPost, c.url+"/v1/chat/completions", bytes.NewReader(body))
	go func() { _, _ = http.DefaultClient.Do(request) }()
	c.until(func(s Stats) bool { return s.InFlight == 1 })

	hangUp()

	stats := c.until(func(s Stats) bool { return s.InFlight == 0 })
	if stats.Aborted != 1 || stats.Generations != 0 || stats.InFlightPeak != 1 {
		t.Errorf("%+v", stats)
	}
}

func TestASecondGenerationUnderTheSameIdIsCounted(t *testing.T) {
	c := started(t, Plan{})

	c.post("/v1/chat/completions", asking("a"), "one")
	c.post("/v1/chat/completions", asking("a"), "one")
	c.post("/v1/chat/completions", asking("a"), "two")

	stats := c.until(func(s Stats) bool { return s.Generations == 3 })
	if stats.DistinctIDs != 2 || stats.RepeatedGeneration != 1 || stats.Answers["200"] != 3 {
		t.Errorf("%+v", stats)
	}
}

func TestThePlanChangesAtRunTimeAndResetStartsTheCountAnew(t *testing.T) {
	c := started(t, Plan{})
	c.chat("a")

	status, _, _ := c.post("/control", map[string]any{"latency": "constant:30ms"}, "")
	wrong, _, _ := c.post("/control", map[string]any{"latncy": "none"}, "")
	c.post("/stats/reset", nil, "")
	began := time.Now()
	c.chat("a")
	took := time.Since(began)

	if status != 200 || wrong != 400 || took < 30*time.Millisecond {
		t.Error(status, wrong, took)
	}
	stats := c.until(func(s Stats) bool { return s.Generations == 1 })
	if stats.Requests != 1 || math.Abs(stats.LatencyDrawnS-0.03) > 1e-9 {
		t.Errorf("%+v", stats)
	}
}

func TestTheJournalNamesEveryFinishedAnswer(t *testing.T) {
	var journal bytes.Buffer
	server, err := New(Options{Dim: 2, AnswerTokens: 4, Plan: Plan{Latency: "none", FailStatus: 500}, Journal: &journal})
	if err != nil {
		t.Fatal(err)
	}
	listening := httptest.NewServer(server)
	defer listening.Close()

	for _, id := range []string{"one", "two"} {
		body, _ := json.Marshal(asking("a"))
		request, _ := http.NewRequest(http.MethodPost, listening.URL+"/v1/chat/completions", bytes.NewReader(body))
		request.Header.Set("x-request-id", id)
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close()
	}
	listening.Close() // its handlers have ended then

	if journal.String() != "one\ntwo\n" {
		t.Errorf("%q", journal.String())
	}
}
