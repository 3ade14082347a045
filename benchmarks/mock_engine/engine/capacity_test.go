package engine

import (
	"context"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

func limited(t *testing.T, c Capacity) client {
	t.Helper()
	plan := Plan{Latency: "none", FailStatus: 500}
	engine, err := New(Options{Seed: 1, Dim: 16, AnswerTokens: 4, Plan: plan, Capacity: c})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(engine)
	t.Cleanup(server.Close)
	return client{t, server.URL}
}

func said(text string) map[string]any {
	return map[string]any{"model": "m", "messages": []any{map[string]string{"role": "user", "content": text}}}
}

func (c client) took(text string) time.Duration {
	began := time.Now()
	if status, _, _ := c.post("/v1/chat/completions", said(text), ""); status != 200 {
		c.t.Errorf("status %d", status)
	}
	return time.Since(began)
}

func TestWhoFindsNoSlotWaitsForOne(t *testing.T) {
	c := limited(t, Capacity{Slots: 2, PerToken: 10 * time.Millisecond})
	began := time.Now()
	var all sync.WaitGroup
	for range 6 {
		all.Add(1)
		go func() { defer all.Done(); c.took("hi") }()
	}
	all.Wait()

	// Three rounds of two, 4 tokens each.
	if took := time.Since(began); took < 115*time.Millisecond || took > time.Second {
		t.Fatalf("took %v", took)
	}
}

func TestAClientThatLeavesWhileItWaitsTakesNoSlot(t *testing.T) {
	d := newDesk(Capacity{Slots: 1})
	d.enter(context.Background())
	gone, leave := context.WithCancel(context.Background())
	leave()

	if d.enter(gone) {
		t.Fatal("entered")
	}
	d.leave()
	if !d.enter(context.Background()) {
		t.Fatal("the slot is lost")
	}
}

func TestAPromptWhoseBeginningIsKnownIsFaster(t *testing.T) {
	c := limited(t, Capacity{PerPrompt: time.Millisecond, CacheTokens: 1000})
	long := strings.Repeat("word", 100)

	first, second, other := c.took(long+"a"), c.took(long+"b"), c.took("x"+long)

	if first < 100*time.Millisecond || second > first/2 || other < 100*time.Millisecond {
		t.Fatalf("took %v, %v, %v", first, second, other)
	}
	if stats := c.stats(); stats.CachedTokens != 96 || stats.PromptTokens < 300 {
		t.Fatalf("counted %d of %d", stats.CachedTokens, stats.PromptTokens)
	}
}

func TestTheCacheForgetsTheEndsOfTheOldestPrompts(t *testing.T) {
	d := newDesk(Capacity{CacheTokens: 64})
	old, fresh := strings.Repeat("old ", 48), strings.Repeat("new ", 32)
	for _, prompt := range []string{old, fresh} {
		_, blocks := d.cached(prompt)
		d.keep(blocks)
	}

	kept, _ := d.cached(old)
	whole, _ := d.cached(fresh)

	if kept != 32 || whole != 32 {
		t.Fatalf("kept %d and %d tokens", kept, whole)
	}
}
