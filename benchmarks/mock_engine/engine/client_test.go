package engine

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

type client struct {
	t   *testing.T
	url string
}

func started(t *testing.T, plan Plan) client {
	t.Helper()
	if plan.Latency == "" {
		plan.Latency = "none"
	}
	if plan.FailStatus == 0 {
		plan.FailStatus = 500
	}
	engine, err := New(Options{Seed: 1, Dim: 16, AnswerTokens: 4, Plan: plan})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(engine)
	t.Cleanup(server.Close)
	return client{t, server.URL}
}

// post gives status and body, 0 where the connection ended without a whole answer.
func (c client) post(path string, page any, id string) (int, http.Header, []byte) {
	c.t.Helper()
	body, _ := json.Marshal(page)
	request, _ := http.NewRequest(http.MethodPost, c.url+path, bytes.NewReader(body))
	if id != "" {
		request.Header.Set("x-request-id", id)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, nil, nil
	}
	defer response.Body.Close()
	read, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, nil, read
	}
	return response.StatusCode, response.Header, read
}

func (c client) chat(text string) (int, []byte) {
	status, _, body := c.post("/v1/chat/completions", asking(text), "")
	return status, body
}

func (c client) stats() (stats Stats) {
	c.t.Helper()
	response, err := http.Get(c.url + "/stats")
	if err != nil {
		c.t.Fatal(err)
	}
	defer response.Body.Close()
	if err := json.NewDecoder(response.Body).Decode(&stats); err != nil {
		c.t.Fatal(err)
	}
	return stats
}

// until waits for the numbers: an answer is at its reader before it is in the ledger.
func (c client) until(true_ func(Stats) bool) Stats {
	c.t.Helper()
	for range 200 {
		if stats := c.stats(); true_(stats) {
			return stats
		}
		time.Sleep(10 * time.Millisecond)
	}
	c.t.Fatalf("never came true; stats %+v", c.stats())
	return Stats{}
}

func asking(text string) map[string]any {
	return map[string]any{"model": "m", "messages": []any{
		map[string]string{"role": "system", "content": "be brief"},
		map[string]string{"role": "user", "content": text}}}
}
