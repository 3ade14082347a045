package engine

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// A Latency is a distribution of answer times. Its draws are pure: the same seed and the same
// content give the same time, so that all sides of a benchmark wait equally long.
type Latency struct {
	mean  time.Duration
	sigma float64 // of the logarithm; 0 is constant
}

// ParseLatency reads "none", "constant:20ms" or "lognormal:MEAN:SIGMA". MEAN is the mean and not
// the median: runs of different sigma do the same work.
func ParseLatency(text string) (Latency, error) {
	kind, rest, _ := strings.Cut(text, ":")
	mean, sigma, _ := strings.Cut(rest, ":")
	wrong := fmt.Errorf("latency must be none, constant:20ms or lognormal:50ms:1.0, got %q", text)
	if kind == "none" && rest == "" {
		return Latency{}, nil
	}
	d, err := time.ParseDuration(mean)
	if err != nil || d < 0 {
		return Latency{}, wrong
	}
	if kind == "constant" && sigma == "" {
		return Latency{mean: d}, nil
	}
	s, err := strconv.ParseFloat(sigma, 64)
	if kind != "lognormal" || err != nil || s < 0 || s > 5 {
		return Latency{}, wrong
	}
	return Latency{mean: d, sigma: s}, nil
}

// Draw gives the time of one answer to this content.
func (l Latency) Draw(seed uint64, content [32]byte) time.Duration {
	if l.sigma == 0 {
		return l.mean
	}
	u, v := uniforms(seed, content, "latency", 0)
	// Box-Muller; 1-u is never 0.
	normal := math.Sqrt(-2*math.Log(1-u)) * math.Cos(2*math.Pi*v)
	mu := math.Log(l.mean.Seconds()) - l.sigma*l.sigma/2
	return time.Duration(math.Exp(mu+l.sigma*normal) * float64(time.Second))
}

// uniforms gives two numbers of [0, 1) that depend on all arguments and nothing else.
func uniforms(seed uint64, content [32]byte, what string, count int) (float64, float64) {
	block := binary.LittleEndian.AppendUint64(content[:], seed)
	block = binary.LittleEndian.AppendUint64(block, uint64(count))
	sum := sha256.Sum256(append(block, what...))
	return uniform(binary.LittleEndian.Uint64(sum[:])), uniform(binary.LittleEndian.Uint64(sum[8:]))
}

func uniform(bits uint64) float64 { return float64(bits>>11) / (1 << 53) }
