package engine

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"
)

// whole sends an unstreamed answer, spoiled as the fault says, and counts it.
func (s *Server) whole(w http.ResponseWriter, e *entry, asked *job, fault Fault) {
	page := asked.page(s.options, fault)
	if fault.Kind == "error_200" {
		page = errorPage(http.StatusInternalServerError, "told to answer 200 with an error")
	}
	body, _ := json.Marshal(page)
	if fault.Kind == "half_json" {
		body = body[:len(body)/2]
	}
	header(w, "application/json", len(body))
	if fault.Kind == "cut" {
		_, _ = w.Write(body[:len(body)/2])
		e.abort()
		panic(http.ErrAbortHandler)
	}
	sent, err := w.Write(body)
	if err != nil {
		e.abort()
		return
	}
	e.finish(asked, sent)
}

// stream sends the events, evenly over the drawn time, and counts the answer.
func (s *Server) stream(w http.ResponseWriter, r *http.Request, e *entry, asked *job, fault Fault) {
	w.Header().Set("content-type", "text/event-stream")
	flusher := http.NewResponseController(w)
	events, began, sent := asked.stream(s.options), time.Now(), 0
	for place, event := range events {
		due := e.drawn * time.Duration(place+1) / time.Duration(len(events))
		if left := due - time.Since(began); left > 0 && !s.wait(r.Context(), e, left) {
			return
		}
		data, _ := json.Marshal(event)
		if place == len(events)/2 && s.spoiled(w, e, data, fault) {
			return
		}
		line := append(append([]byte("data: "), data...), "\n\n"...)
		if place == len(events)-1 {
			line = append(line, "data: [DONE]\n\n"...)
		}
		n, err := w.Write(line)
		if err == nil {
			err = flusher.Flush()
		}
		if err != nil {
			e.abort()
			return
		}
		sent += n
	}
	e.finish(asked, sent)
}

// spoiled ends a stream in its middle where the fault says so.
func (s *Server) spoiled(w http.ResponseWriter, e *entry, data []byte, fault Fault) bool {
	switch fault.Kind {
	case "cut":
		_, _ = w.Write(append([]byte("data: "), data[:len(data)/2]...))
		e.abort()
		panic(http.ErrAbortHandler)
	case "half_json":
		_, _ = w.Write(append([]byte("data: "), data[:len(data)/2]...))
	case "error_200":
		event, _ := json.Marshal(errorPage(http.StatusInternalServerError, "told to break off"))
		_, _ = w.Write(append(append([]byte("data: "), event...), "\n\n"...))
	default:
		return false
	}
	e.abort()
	return true
}

// finish counts one generation that was answered to its end.
func (e *entry) finish(asked *job, sent int) {
	e.end(func(l *ledger) {
		l.stats.Answers["200"]++
		l.stats.BytesOut += int64(sent)
		l.stats.Generations++
		l.stats.LatencyDrawnS += e.drawn.Seconds()
		if e.id != nil && l.finished[*e.id] {
			l.stats.RepeatedGeneration++
		} else if e.id != nil {
			l.finished[*e.id] = true
		}
		for _, text := range asked.keys {
			l.stats.ItemsEmbedded++
			if l.embedded[text] {
				l.stats.RepeatedItems++
			}
			l.embedded[text] = true
		}
	})
}

func models(w http.ResponseWriter, _ *http.Request) {
	model := map[string]any{"id": "mock", "object": "model", "created": 0, "owned_by": "sage"}
	reply(w, map[string]any{"object": "list", "data": []any{model}})
}

func reply(w http.ResponseWriter, page any) {
	body, _ := json.Marshal(page)
	header(w, "application/json", len(body))
	_, _ = w.Write(body)
}

// refuse sends an error in OpenAI's form; how many bytes comes back.
func refuse(w http.ResponseWriter, status int, message string) int {
	body, _ := json.Marshal(errorPage(status, message))
	header(w, "application/json", len(body))
	w.WriteHeader(status)
	sent, _ := w.Write(body)
	return sent
}

func errorPage(status int, message string) any {
	kind := "invalid_request_error"
	if status >= 500 {
		kind = "server_error"
	}
	return map[string]any{"error": map[string]any{"message": message, "type": kind, "code": status}}
}

func header(w http.ResponseWriter, kind string, length int) {
	w.Header().Set("content-type", kind)
	w.Header().Set("content-length", strconv.Itoa(length))
}
