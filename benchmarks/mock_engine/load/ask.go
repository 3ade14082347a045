// Package load asks OpenAI-compatible servers, whole or streamed, and notes when what came.
package load

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"time"
)

// A Request is one POST. Headers are set as they are given.
type Request struct {
	URL     string
	Headers map[string]string
	Body    []byte
}

// An Outcome is what came of one. Both times count from when the request was due, not from when it
// could be sent: a client that falls behind does not hide it.
type Outcome struct {
	Status int           // 0: no whole answer
	First  time.Duration // to the first byte of the body
	Took   time.Duration // to the last
	Error  string
	Body   []byte // of what is no 200
}

const keptBytesMax = 300

// NewClient gives one that keeps as many connections as it needs.
func NewClient(timeout time.Duration) *http.Client {
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: -1}
	transport := &http.Transport{
		DialContext: dialer.DialContext, MaxIdleConnsPerHost: 1 << 16, MaxIdleConns: 1 << 16,
		DisableCompression: true, IdleConnTimeout: 4 * time.Second}
	return &http.Client{Transport: transport, Timeout: timeout}
}

// Ask sends a request that was due at a moment, and reads its answer to the end.
func Ask(there context.Context, client *http.Client, request Request, due time.Time) Outcome {
	made, err := http.NewRequestWithContext(there, http.MethodPost, request.URL, bytes.NewReader(request.Body))
	if err != nil {
		return Outcome{Error: err.Error(), Took: time.Since(due)}
	}
	made.Header.Set("content-type", "application/json")
	for name, value := range request.Headers {
		made.Header.Set(name, value)
	}
	response, err := client.Do(made)
	if err != nil {
		return Outcome{Error: err.Error(), Took: time.Since(due)}
	}
	defer response.Body.Close()
	return read(response, due)
}

func read(response *http.Response, due time.Time) Outcome {
	found := Outcome{Status: response.StatusCode}
	buffer := make([]byte, 8<<10)
	for {
		n, err := response.Body.Read(buffer)
		if n > 0 && found.First == 0 {
			found.First = time.Since(due)
		}
		if n > 0 && found.Status != http.StatusOK && len(found.Body) < keptBytesMax {
			found.Body = append(found.Body, buffer[:n]...)
		}
		if n > 0 && failed(buffer[:n]) {
			found.Error = "the stream ended with an error"
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			found.Status, found.Error = 0, err.Error()
			break
		}
	}
	found.Took = time.Since(due)
	if found.Error != "" {
		found.Status = 0
	}
	return found
}

// failed says whether events have one of an error at their start, where a proxy writes it.
func failed(events []byte) bool { return bytes.HasPrefix(events, []byte(`data: {"error"`)) }
