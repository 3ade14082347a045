package engine

import (
	"encoding/json"
	"fmt"
	"testing"
)

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
