package engine

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"math"
	"strings"
	"testing"
)

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

func TestRerankPutsTheDocumentThatIsTheQueryFirst(t *testing.T) {
	c := started(t, Plan{})

	_, _, body := c.post("/v1/rerank", map[string]any{"model": "m", "query": "b", "documents": []any{"a", map[string]string{"text": "b"}}, "top_n": 1}, "")

	if !strings.Contains(string(body), `"results":[{"index":1,"relevance_score":1,`) {
		t.Error(string(body))
	}
}
