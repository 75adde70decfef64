package backoff

import "time"

type Backoff struct {
	attempt  float64
	Factor   float64
	Jitter   bool
	Min, Max time.Duration
}

func (b *Backoff) Duration() time.Duration {
	b.attempt++
	return time.Duration(b.attempt*50) * time.Millisecond
}
