package engine

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// A Fault is what a text asks for in double brackets: [[status=429 retry_after=1 first=2]]. The
// first word names its kind, the others are its settings:
//
//	first=N  only the first N times that this text is seen; after that it is answered
//	after=D  not before the time D has passed, such as 50ms
//
// Kinds that end the whole request, for embeddings too, whichever of the texts asks:
//
//	status=N or N        that status with an OpenAI error body; retry_after=S adds the header
//	close                the connection ends without an answer
//	cut                  it ends in the middle of the answer
//	half_json            a complete HTTP answer whose JSON ends in the middle
//	error_200            status 200 with an error body
//	bytes=N              an answer of at least N bytes
//	hang=60s             the answer comes that much later
//	shuffled             vectors out of order, with the right indices
//
// Kinds of one text's slot in an answer of embeddings:
//
//	dim=N  a vector of N numbers;  nan  a number that is none;  one_few  no vector for this text
//
// Brackets around anything else are text. An active fault is counted in /stats under its kind.
type Fault struct {
	Kind       string
	Status     int
	Number     int
	RetryAfter string
	Wait       time.Duration
	First      int
}

var scripted = regexp.MustCompile(`\[\[([a-z0-9_]+(?:=[0-9a-z.]+)?(?: [a-z_]+=[0-9a-z.]+)*)\]\]`)

// parseFaults gives the faults that stand in the text, in order; an error says which setting is wrong.
func parseFaults(text string) ([]Fault, error) {
	if !strings.Contains(text, "[[") {
		return nil, nil
	}
	var found []Fault
	for _, match := range scripted.FindAllStringSubmatch(text, -1) {
		words := strings.Split(match[1], " ")
		fault, known, err := parseKind(words[0])
		for _, word := range words[1:] {
			if err == nil && known {
				err = fault.set(word)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("fault %s: %w", match[0], err)
		}
		if known {
			found = append(found, fault)
		}
	}
	return found, nil
}

func parseKind(word string) (fault Fault, known bool, err error) {
	kind, value, _ := strings.Cut(word, "=")
	if status, notNumber := strconv.Atoi(kind); notNumber == nil && value == "" && status >= 400 {
		return Fault{Kind: "status", Status: status}, true, nil
	}
	fault.Kind = kind
	switch kind {
	case "status":
		fault.Status, err = strconv.Atoi(value)
		if err == nil && (fault.Status < 200 || fault.Status > 599) {
			err = fmt.Errorf("status must be 200 to 599, got %s", value)
		}
	case "dim", "bytes":
		fault.Number, err = strconv.Atoi(value)
	case "hang":
		fault.Wait, err = time.ParseDuration(value)
	case "close", "cut", "half_json", "error_200", "nan", "one_few", "shuffled":
	default:
		return fault, false, nil
	}
	return fault, true, err
}

func (f *Fault) set(word string) (err error) {
	name, value, _ := strings.Cut(word, "=")
	switch name {
	case "first":
		f.First, err = strconv.Atoi(value)
	case "after":
		f.Wait, err = time.ParseDuration(value)
	case "retry_after":
		f.RetryAfter = value
	default:
		err = fmt.Errorf("unknown setting %q; there are first, after, retry_after", name)
	}
	return err
}

// ofSlot says whether the fault is of one vector and not of the request.
func (f Fault) ofSlot() bool { return f.Kind == "dim" || f.Kind == "nan" || f.Kind == "one_few" }

// active gives the first of the faults that still applies the seen-th time its text comes.
// Counts of first= add up: [[500 first=1]] [[close first=1]] fails twice, in two ways.
func active(faults []Fault, seen int) (Fault, bool) {
	for _, fault := range faults {
		if fault.First == 0 || seen <= fault.First {
			return fault, true
		}
		seen -= fault.First
	}
	return Fault{}, false
}
