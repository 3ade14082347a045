package engine

import (
	"container/list"
	"context"
	"crypto/sha256"
	"fmt"
	"sync"
	"time"
)

const (
	blockTokens = 16
	tokenBytes  = 4
)

// A Capacity makes an engine one that can be full: what it computes at a time is limited, and takes
// as long as prompt and answer are. The zero value is no limit.
type Capacity struct {
	Slots       int           // requests computed at a time; the others wait inside, by arrival
	PerPrompt   time.Duration // for a token of the prompt whose beginning is not cached
	PerToken    time.Duration // for a token of the answer
	CacheTokens int           // of prompts, by their beginnings; the least recently used go first
}

func (c Capacity) check() error {
	if c.Slots < 0 || c.PerPrompt < 0 || c.PerToken < 0 || c.CacheTokens < 0 {
		return fmt.Errorf("slots, per-prompt-token, per-token and cache-tokens must be at least 0")
	}
	return nil
}

// A desk is where requests are computed.
type desk struct {
	Capacity
	slots chan struct{}
	mu    sync.Mutex
	cache map[key]*list.Element
	used  *list.List // keys of blocks, the most recent first
}

func newDesk(c Capacity) *desk {
	d := &desk{Capacity: c}
	if c.Slots > 0 {
		d.slots = make(chan struct{}, c.Slots)
	}
	d.forget()
	return d
}

// forget empties the cache.
func (d *desk) forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cache, d.used = map[key]*list.Element{}, list.New()
}

// enter waits for a slot, by arrival, and says whether the client is still there; leave it after.
func (d *desk) enter(there context.Context) bool {
	if d.slots == nil {
		return true
	}
	select {
	case d.slots <- struct{}{}:
		return true
	case <-there.Done():
		return false
	}
}

func (d *desk) leave() {
	if d.slots != nil {
		<-d.slots
	}
}

// cached gives how many tokens at the prompt's beginning are known, and their blocks.
func (d *desk) cached(prompt string) (tokens int, blocks []key) {
	if d.CacheTokens == 0 {
		return 0, nil
	}
	var link key
	for at := 0; at+blockTokens*tokenBytes <= len(prompt); at += blockTokens * tokenBytes {
		link = sha256.Sum256(append(link[:], prompt[at:at+blockTokens*tokenBytes]...))
		blocks = append(blocks, link)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, block := range blocks {
		if d.cache[block] == nil {
			break
		}
		tokens += blockTokens
	}
	return tokens, blocks
}

// keep remembers the blocks of a prompt, its beginning as the most recent.
func (d *desk) keep(blocks []key) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := len(blocks) - 1; i >= 0; i-- {
		if known := d.cache[blocks[i]]; known != nil {
			d.used.MoveToFront(known)
		} else {
			d.cache[blocks[i]] = d.used.PushFront(blocks[i])
		}
	}
	for d.used.Len()*blockTokens > d.CacheTokens {
		delete(d.cache, d.used.Remove(d.used.Back()).(key))
	}
}

// prefill takes the time of a prompt, and says whether the client is still there.
func (s *Server) prefill(there context.Context, e *entry, asked *job) bool {
	if asked.prompt == nil || (s.desk.PerPrompt == 0 && s.desk.CacheTokens == 0) {
		return true
	}
	prompt := asked.prompt()
	all := tokensOf(prompt)
	known, blocks := s.desk.cached(prompt)
	if !s.wait(there, e, time.Duration(all-known)*s.desk.PerPrompt) {
		return false
	}
	s.desk.keep(blocks)
	s.ledger.prefilled(all, known)
	return true
}
