package engine

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
)

type generationRequest struct {
	Model     string          `json:"model"`
	Messages  []message       `json:"messages"`
	Prompt    json.RawMessage `json:"prompt"`
	Stream    bool            `json:"stream"`
	MaxTokens int             `json:"max_tokens"`
	MaxNew    int             `json:"max_completion_tokens"`
	Options   struct {
		Usage bool `json:"include_usage"`
	} `json:"stream_options"`
}

type message struct {
	Role    string          `json:"role"`
	Content json.RawMessage `json:"content"`
}

type usage struct {
	Prompt     int `json:"prompt_tokens"`
	Completion int `json:"completion_tokens"`
	Total      int `json:"total_tokens"`
}

// chat reads a chat completion. The answer begins with "sum:" and the first 16 hex digits of the
// SHA-256 of the last user message, so that a reader can check that it is the right one.
func chat(body []byte) (*job, error) {
	asked, err := readGeneration(body)
	if err != nil {
		return nil, err
	}
	if len(asked.Messages) == 0 {
		return nil, fmt.Errorf("messages must be a list of at least one")
	}
	last, prompt := "", 0
	for _, m := range asked.Messages {
		content := textOf(m.Content)
		prompt += tokensOf(content)
		if m.Role == "user" {
			last = content
		}
	}
	made := asked.job("chat.completion", last, prompt)
	made.prompt = asked.rendered
	return made, nil
}

// completion reads a plain completion; its prompt stands where the last user message does.
func completion(body []byte) (*job, error) {
	asked, err := readGeneration(body)
	if err != nil {
		return nil, err
	}
	if len(asked.Prompt) == 0 {
		return nil, fmt.Errorf("prompt is missing")
	}
	text := textOf(asked.Prompt)
	return asked.job("text_completion", text, tokensOf(text)), nil
}

func readGeneration(body []byte) (asked generationRequest, err error) {
	if err = json.Unmarshal(body, &asked); err != nil {
		return asked, fmt.Errorf("the body is not a request: %w", err)
	}
	return asked, nil
}

func (a generationRequest) job(object, text string, prompt int) *job {
	digest := key(sha256.Sum256([]byte(text)))
	id := hex.EncodeToString(digest[:8])
	words := func(o Options) []string { return answer(id, a.tokens(o)) }
	used := func(o Options) usage {
		completion := len(words(o))
		return usage{prompt, completion, prompt + completion}
	}
	made := &job{texts: []string{text}, digest: digest, tokens: a.tokens}
	made.page = func(o Options, fault Fault) any {
		content := strings.Join(words(o), "")
		if fault.Kind == "bytes" {
			content += strings.Repeat("x", max(0, fault.Number-len(content)))
		}
		return page(id, object, a.Model, choice(object, "message", content, "stop"), used(o))
	}
	if a.Stream {
		made.stream = func(o Options) []any {
			return a.events(id, object, words(o), used(o))
		}
	}
	return made
}

// events gives one event a word, one with the reason of the end, and one with usage if asked for.
func (a generationRequest) events(id, object string, words []string, used usage) []any {
	chunk := object
	if object == "chat.completion" {
		chunk = "chat.completion.chunk"
	}
	var events []any
	for _, word := range words {
		events = append(events, page(id, chunk, a.Model, choice(object, "delta", word, nil), nil))
	}
	events = append(events, page(id, chunk, a.Model, choice(object, "delta", "", "stop"), nil))
	if a.Options.Usage {
		events = append(events, page(id, chunk, a.Model, nil, used))
	}
	return events
}

// rendered is what a chat template makes of the messages.
func (a generationRequest) rendered() string {
	var text strings.Builder
	for _, m := range a.Messages {
		text.WriteString("<" + m.Role + ">" + textOf(m.Content))
	}
	return text.String()
}

func (a generationRequest) tokens(o Options) int {
	tokens := o.AnswerTokens
	for _, limit := range []int{a.MaxTokens, a.MaxNew} {
		if limit > 0 {
			tokens = min(tokens, limit)
		}
	}
	return tokens
}

func page(id, object, model string, one any, used any) any {
	choices := []any{}
	if one != nil {
		choices = append(choices, one)
	}
	made := map[string]any{"id": "mock-" + id, "object": object, "created": 0, "model": model, "choices": choices}
	if used != nil {
		made["usage"] = used
	}
	return made
}

func choice(object, part, content string, reason any) any {
	made := map[string]any{"index": 0, "finish_reason": reason}
	if object == "text_completion" {
		made["text"] = content
	} else {
		made[part] = map[string]any{"role": "assistant", "content": content}
	}
	return made
}

// answer gives the words of one answer, the checksum first, each a token.
func answer(sum string, tokens int) []string {
	words := []string{"sum:" + sum}
	for len(words) < tokens {
		words = append(words, " word")
	}
	return words
}

// textOf reads a content of OpenAI's: a text, or parts of which the texts count, or anything else as
// it stands.
func textOf(raw json.RawMessage) string {
	var text string
	if bytes.HasPrefix(raw, []byte(`"`)) && json.Unmarshal(raw, &text) == nil {
		return text
	}
	var parts []struct {
		Text string `json:"text"`
	}
	if json.Unmarshal(raw, &parts) == nil {
		for _, part := range parts {
			text += part.Text
		}
		return text
	}
	return string(raw)
}

func tokensOf(text string) int { return 1 + len(text)/4 }
