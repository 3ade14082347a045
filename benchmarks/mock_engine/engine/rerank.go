package engine

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"sort"
	"strings"
)

// rerank reads a query and documents, in the form that Cohere, Jina and vLLM share. A document that
// equals the query scores 1; every other one a number of [0, 1) that depends on the pair alone.
func rerank(body []byte) (*job, error) {
	var asked struct {
		Model     string            `json:"model"`
		Query     string            `json:"query"`
		Documents []json.RawMessage `json:"documents"`
		TopN      int               `json:"top_n"`
	}
	if err := json.Unmarshal(body, &asked); err != nil {
		return nil, fmt.Errorf("the body is not a request: %w", err)
	}
	if asked.Query == "" || len(asked.Documents) == 0 {
		return nil, fmt.Errorf("query must be a text and documents a list of at least one")
	}
	texts := []string{asked.Query}
	for _, document := range asked.Documents {
		texts = append(texts, documentText(document))
	}
	made := &job{texts: texts, digest: sha256.Sum256([]byte(strings.Join(texts, "\x00")))}
	made.page = func(o Options, fault Fault) any {
		results, tokens := ranked(asked.Query, texts[1:], asked.TopN)
		page := map[string]any{"id": "mock", "model": asked.Model, "results": results,
			"usage": map[string]int{"prompt_tokens": tokens, "total_tokens": tokens}}
		if fault.Kind == "bytes" {
			page["padding"] = strings.Repeat("x", fault.Number)
		}
		return page
	}
	return made, nil
}

func documentText(raw json.RawMessage) string {
	var wrapped struct {
		Text string `json:"text"`
	}
	if json.Unmarshal(raw, &wrapped) == nil {
		return wrapped.Text
	}
	return textOf(raw)
}

type rankedItem struct {
	Index    int               `json:"index"`
	Score    float64           `json:"relevance_score"`
	Document map[string]string `json:"document"`
}

func ranked(query string, documents []string, top int) ([]rankedItem, int) {
	items, tokens := make([]rankedItem, len(documents)), tokensOf(query)
	for i, text := range documents {
		score, _ := uniforms(0, sha256.Sum256([]byte(query+"\x00"+text)), "rerank", 0)
		if text == query {
			score = 1
		}
		items[i] = rankedItem{i, score, map[string]string{"text": text}}
		tokens += tokensOf(text)
	}
	sort.SliceStable(items, func(a, b int) bool { return items[a].Score > items[b].Score })
	if top > 0 {
		items = items[:min(top, len(items))]
	}
	return items, tokens
}
