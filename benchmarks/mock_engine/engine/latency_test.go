package engine

import (
	"crypto/sha256"
	"fmt"
	"math"
	"testing"
	"time"
)

func drawn(t *testing.T, text string, count int) []float64 {
	t.Helper()
	latency, err := ParseLatency(text)
	if err != nil {
		t.Fatal(err)
	}
	var seconds []float64
	for i := range count {
		seconds = append(seconds, latency.Draw(1, sha256.Sum256(fmt.Append(nil, i))).Seconds())
	}
	return seconds
}

func TestLognormalHasTheMeanAndTheSigmaItIsNamedBy(t *testing.T) {
	for _, sigma := range []float64{0.5, 1.0} {
		seconds := drawn(t, fmt.Sprintf("lognormal:50ms:%g", sigma), 100_000)

		mean, logs, squares := 0.0, 0.0, 0.0
		for _, s := range seconds {
			mean += s / float64(len(seconds))
			logs += math.Log(s) / float64(len(seconds))
		}
		for _, s := range seconds {
			squares += math.Pow(math.Log(s)-logs, 2) / float64(len(seconds))
		}
		if math.Abs(mean-0.05) > 0.001 || math.Abs(math.Sqrt(squares)-sigma) > 0.01 {
			t.Errorf("sigma %g: mean %g s, sigma %g", sigma, mean, math.Sqrt(squares))
		}
	}
}

func TestADrawDependsOnSeedAndContentAlone(t *testing.T) {
	latency, _ := ParseLatency("lognormal:50ms:1.0")
	content := sha256.Sum256([]byte("text"))

	again := latency.Draw(1, content) == latency.Draw(1, content)
	otherSeed := latency.Draw(2, content) == latency.Draw(1, content)

	if !again || otherSeed {
		t.Errorf("the same twice: %v, under another seed: %v", again, otherSeed)
	}
}

func TestALatencyThatCannotBeReadIsRefused(t *testing.T) {
	for _, text := range []string{"", "constant", "constant:-1s", "lognormal:50ms", "lognormal:50ms:9", "none:1s"} {
		if _, err := ParseLatency(text); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
	if latency, err := ParseLatency("constant:20ms"); err != nil || latency.Draw(1, key{}) != 20*time.Millisecond {
		t.Error("constant:20ms was not", err)
	}
}
