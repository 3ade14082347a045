package load

import (
	"context"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"
)

// Closed keeps so many requests in flight for a time; each client asks at least once, and again once it
// is answered.
func Closed(client *http.Client, clients int, lasting time.Duration, next func(client, turn int) Request) []Outcome {
	outcomes, began := make([][]Outcome, clients), time.Now()
	var all sync.WaitGroup
	for number := range outcomes {
		all.Add(1)
		go func() {
			defer all.Done()
			for turn := 0; turn == 0 || time.Since(began) < lasting; turn++ {
				request := next(number, turn)
				outcomes[number] = append(outcomes[number], Ask(context.Background(), client, request, time.Now()))
			}
		}()
	}
	all.Wait()
	var flat []Outcome
	for _, some := range outcomes {
		flat = append(flat, some...)
	}
	return flat
}

// Open asks at random moments (Poisson), rate a second on average, whatever became of those before.
func Open(client *http.Client, rate float64, lasting time.Duration, seed uint64, next func(client, turn int) Request) []Outcome {
	dice := rand.New(rand.NewPCG(seed, seed))
	var dues []time.Duration
	for at := dice.ExpFloat64() / rate; at < lasting.Seconds(); at += dice.ExpFloat64() / rate {
		dues = append(dues, time.Duration(at*float64(time.Second)))
	}
	requests := make([]Request, len(dues))
	for i := range requests {
		requests[i] = next(i, 0)
	}
	return Timed(client, requests, dues, time.Minute)
}

// Timed asks each request at its moment after now, which rise, and gives the outcomes in that order.
// Who is not answered grace after the last moment is left, with status 0.
func Timed(client *http.Client, requests []Request, dues []time.Duration, grace time.Duration) []Outcome {
	outcomes, began := make([]Outcome, len(requests)), time.Now()
	there, leave := context.WithCancel(context.Background())
	defer leave()
	var all sync.WaitGroup
	for i, request := range requests {
		due := began.Add(dues[i])
		time.Sleep(time.Until(due))
		all.Add(1)
		go func() {
			defer all.Done()
			outcomes[i] = Ask(there, client, request, due)
		}()
	}
	timer := time.AfterFunc(grace, leave)
	defer timer.Stop()
	all.Wait()
	return outcomes
}
