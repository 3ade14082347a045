package engine

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
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

func sum(text string) string {
	digest := sha256.Sum256([]byte(text))
	return "sum:" + hex.EncodeToString(digest[:8])
}

func TestAnAnswerHoldsTheChecksumOfTheLastUserMessage(t *testing.T) {
	c := started(t, Plan{})

	_, whole := c.chat("hello")
	page := asking("hello")
	page["stream"], page["stream_options"] = true, map[string]bool{"include_usage": true}
	_, headers, streamed := c.post("/v1/chat/completions", page, "r1")
	_, _, plain := c.post("/v1/completions", map[string]any{"model": "m", "prompt": "hello"}, "")

	for _, body := range [][]byte{whole, streamed, plain} {
		if !strings.Contains(string(body), sum("hello")) {
			t.Errorf("no %s in %s", sum("hello"), body)
		}
	}
	text := string(streamed)
	if !strings.HasSuffix(text, "data: [DONE]\n\n") || !strings.Contains(text, `"completion_tokens":4`) || headers.Get("x-request-id") != "r1" {
		t.Error("the stream has no end, no usage or no id:", text)
	}
}

func TestVectorsAreUnitLengthAndTheSameInBothEncodings(t *testing.T) {
	c := started(t, Plan{})
	texts := []string{"one", "two", "one"}

	_, _, packed := c.post("/v1/embeddings", map[string]any{"model": "m", "input": texts, "encoding_format": "base64"}, "")
	_, _, listed := c.post("/v1/embeddings", map[string]any{"model": "m", "input": texts}, "")

	var read struct {
		Data []struct {
			Embedding json.RawMessage `json:"embedding"`
		} `json:"data"`
	}
	_ = json.Unmarshal(packed, &read)
	first, second, third := unpack(t, read.Data[0].Embedding), unpack(t, read.Data[1].Embedding), unpack(t, read.Data[2].Embedding)
	_ = json.Unmarshal(listed, &read)
	var numbers []float32
	_ = json.Unmarshal(read.Data[0].Embedding, &numbers)
	length := 0.0
	for i := range first {
		length += float64(first[i] * first[i])
		if first[i] != third[i] || first[i] != numbers[i] {
			t.Fatal("the same text has two vectors")
		}
	}
	if math.Abs(length-1) > 1e-5 || len(first) != 16 || first[0] == second[0] {
		t.Error("length", length, "dim", len(first))
	}
	if stats := c.stats(); stats.ItemsEmbedded != 6 || stats.RepeatedItems != 4 {
		t.Errorf("%+v", stats)
	}
}

func unpack(t *testing.T, raw json.RawMessage) []float32 {
	t.Helper()
	var text string
	_ = json.Unmarshal(raw, &text)
	data, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	vector := make([]float32, len(data)/4)
	for i := range vector {
		vector[i] = math.Float32frombits(binary.LittleEndian.Uint32(data[4*i:]))
	}
	return vector
}

func TestAFaultIsInTheTextAndEndsWhereItSaysSo(t *testing.T) {
	c := started(t, Plan{})

	status, headers, _ := c.post("/v1/chat/completions", asking("[[status=429 retry_after=1 first=2]]"), "")
	again, _ := c.chat("[[status=429 retry_after=1 first=2]]")
	third, _ := c.chat("[[status=429 retry_after=1 first=2]]")

	if status != 429 || headers.Get("retry-after") != "1" || again != 429 || third != 200 {
		t.Error(status, headers.Get("retry-after"), again, third)
	}
	for text, want := range map[string]int{"[[413]]": 413, "[[close]]": 0, "[[cut]]": 0, "[[half_json]]": 200,
		"[[error_200]]": 200, "[[hang=1ms]]": 200, "[[unknown]]": 200, "[[status=soon]]": 400, "a[[500]]b": 500} {
		status, body := c.chat(text)
		valid := json.Valid(body) != (text == "[[half_json]]")
		if status != want || (want != 0 && !valid) {
			t.Errorf("%s: %d %s", text, status, body)
		}
	}
	if _, body := c.chat("[[bytes=100000]]"); len(body) < 100000 {
		t.Error("too small:", len(body))
	}
}

func TestAFaultOfOneTextSpoilsItsSlotOrTheWholeRequest(t *testing.T) {
	c := started(t, Plan{})
	embed := func(texts ...string) (int, []int, []json.RawMessage) {
		status, _, body := c.post("/v1/embeddings", map[string]any{"model": "m", "input": texts}, "")
		var page struct {
			Data []struct {
				Index     int             `json:"index"`
				Embedding json.RawMessage `json:"embedding"`
			} `json:"data"`
		}
		_ = json.Unmarshal(body, &page)
		var places []int
		var vectors []json.RawMessage
		for _, item := range page.Data {
			places, vectors = append(places, item.Index), append(vectors, item.Embedding)
		}
		return status, places, vectors
	}

	refused, _, _ := embed("good", "[[status=400]]")
	_, _, spoiled := embed("[[dim=7]]", "[[nan]]", "good")
	_, few, _ := embed("good", "[[one_few]]", "better")
	_, turned, _ := embed("good", "[[shuffled]]", "better")

	var short, wrong []*float32
	_ = json.Unmarshal(spoiled[0], &short)
	_ = json.Unmarshal(spoiled[1], &wrong)
	if refused != 400 || len(short) != 7 || wrong[0] != nil || wrong[1] == nil {
		t.Error(refused, len(short), wrong)
	}
	if fmt.Sprint(few) != "[0 2]" || fmt.Sprint(turned) != "[2 1 0]" {
		t.Error(few, turned)
	}
}

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

func TestTheGlobalRateFailsThatShareAndARetryIsDecidedAnew(t *testing.T) {
	c := started(t, Plan{FailRate: 0.2, FailStatus: 503})

	failed, twice := 0, 0
	for i := range 1000 {
		first, _, _ := c.post("/v1/chat/completions", asking("x"), fmt.Sprint(i))
		second, _, _ := c.post("/v1/chat/completions", asking("x"), fmt.Sprint(i))
		if first == 503 {
			failed++
			if second == 503 {
				twice++
			}
		}
	}

	if failed < 160 || failed > 240 || twice > failed/2 {
		t.Error("failed", failed, "of 1000, again", twice)
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

func TestRerankPutsTheDocumentThatIsTheQueryFirst(t *testing.T) {
	c := started(t, Plan{})

	_, _, body := c.post("/v1/rerank", map[string]any{"model": "m", "query": "b", "documents": []any{"a", map[string]string{"text": "b"}}, "top_n": 1}, "")

	if !strings.Contains(string(body), `"results":[{"index":1,"relevance_score":1,`) {
		t.Error(string(body))
	}
}
