package engine

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"sort"
	"strings"
)

type vectorItem struct {
	Object    string `json:"object"`
	Index     int    `json:"index"`
	Embedding any    `json:"embedding"`
}

// embeddings reads a request for vectors: of one text or a list, as base64 or as numbers.
func embeddings(body []byte) (*job, error) {
	var asked struct {
		Model    string          `json:"model"`
		Input    json.RawMessage `json:"input"`
		Encoding string          `json:"encoding_format"`
	}
	if err := json.Unmarshal(body, &asked); err != nil {
		return nil, fmt.Errorf("the body is not a request: %w", err)
	}
	texts := textsOf(asked.Input)
	if len(texts) == 0 {
		return nil, fmt.Errorf("input must be a text or a list of at least one")
	}
	made := &job{texts: texts, slots: make([]Fault, len(texts))}
	tokens, whole := 0, sha256.New()
	for _, text := range texts {
		sum := key(sha256.Sum256([]byte(text)))
		made.keys = append(made.keys, sum)
		whole.Write(sum[:])
		tokens += tokensOf(text)
	}
	copy(made.digest[:], whole.Sum(nil))
	made.page = func(o Options, fault Fault) any {
		page := map[string]any{"object": "list", "model": asked.Model,
			"data":  made.vectors(o, asked.Encoding == "base64", fault.Kind == "shuffled"),
			"usage": map[string]int{"prompt_tokens": tokens, "total_tokens": tokens}}
		if fault.Kind == "bytes" {
			page["padding"] = strings.Repeat("x", fault.Number)
		}
		return page
	}
	return made, nil
}

func textsOf(input json.RawMessage) []string {
	var many []json.RawMessage
	if json.Unmarshal(input, &many) != nil {
		many = []json.RawMessage{input}
	}
	var texts []string
	for _, one := range many {
		if len(one) > 0 {
			texts = append(texts, textOf(one))
		}
	}
	return texts
}

func (j *job) vectors(o Options, packed, shuffled bool) []vectorItem {
	items := []vectorItem{}
	for place, text := range j.keys {
		dim, fault := o.Dim, j.slots[place]
		if fault.Kind == "one_few" {
			continue
		}
		if fault.Kind == "dim" {
			dim = fault.Number
		}
		vector := vectorOf(text, dim)
		if fault.Kind == "nan" {
			vector[0] = float32(math.NaN())
		}
		items = append(items, vectorItem{"embedding", place, written(vector, packed)})
	}
	if shuffled {
		sort.SliceStable(items, func(a, b int) bool { return items[a].Index > items[b].Index })
	}
	return items
}

// vectorOf gives a vector of length 1 that depends on the text alone.
func vectorOf(text key, dim int) []float32 {
	state := binary.LittleEndian.Uint64(text[:])
	vector, square := make([]float32, dim), 0.0
	for i := range vector {
		// SplitMix64, https://prng.di.unimi.it/splitmix64.c
		state += 0x9e3779b97f4a7c15
		z := (state ^ (state >> 30)) * 0xbf58476d1ce4e5b9
		z = (z ^ (z >> 27)) * 0x94d049bb133111eb
		number := 2*uniform(z^(z>>31)) - 1
		vector[i], square = float32(number), square+number*number
	}
	for i := range vector {
		vector[i] /= float32(math.Sqrt(square))
	}
	return vector
}

// written gives little-endian float32 in base64, or a list of numbers with null for what is none.
func written(vector []float32, packed bool) any {
	if packed {
		raw := make([]byte, 0, 4*len(vector))
		for _, number := range vector {
			raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(number))
		}
		return base64.StdEncoding.EncodeToString(raw)
	}
	numbers := make([]*float32, len(vector))
	for i := range vector {
		if !math.IsNaN(float64(vector[i])) {
			numbers[i] = &vector[i]
		}
	}
	return numbers
}
