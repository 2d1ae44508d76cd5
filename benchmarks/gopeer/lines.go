// lines.go: how what a script prints becomes lines for a logger.
package main

import (
	"bytes"
	"context"
	"sync/atomic"
	"time"
)

// entry is what a logger gets for each line.
type entry struct {
	at    time.Time
	text  string
	isErr bool
}

// counter is the logger: it counts lines, and forgets them.
type counter struct {
	lines atomic.Int64
	delay time.Duration // for each line
}

func (c *counter) send(_ context.Context, entries ...entry) error {
	time.Sleep(c.delay * time.Duration(len(entries)))
	c.lines.Add(int64(len(entries)))
	return nil
}

type send func(context.Context, ...entry) error

// cutter makes entries of what is written to it.
type cutter struct {
	ctx     context.Context
	send    send
	isErr   bool
	partial bytes.Buffer
}

func (c *cutter) Write(p []byte) (int, error) {
	for rest := p; ; {
		line, after, found := bytes.Cut(rest, []byte{'\n'})
		if !found {
			c.partial.Write(rest)
			return len(p), nil
		}
		rest = after
		if c.partial.Len() > 0 {
			c.partial.Write(line)
			line = c.partial.Bytes()
			c.partial.Reset()
		}
		if err := c.emit(bytes.TrimSuffix(line, []byte{'\r'})); err != nil {
			return 0, err
		}
	}
}

func (c *cutter) emit(line []byte) error {
	return c.send(c.ctx, entry{time.Now().UTC(), string(line), c.isErr})
}

func (c *cutter) close() error {
	if c.partial.Len() == 0 {
		return nil
	}
	return c.emit(c.partial.Bytes())
}
