// gopeer.go: what Coder's agent, a program in Go, does for a script, with Go's standard library alone.
//
//	gopeer each COUNT TIMEOUT LOG PROGRAM [ARG...]    one after the other; TIMEOUT in ms, 0: none
//	gopeer once COUNT DIRECTORY PROGRAM [ARG...]      all at once
//
// Both print one line of JSON: {"ns": total, "each": [ns, ...], "lines": n}. `each` has what each one
// took, or how late its timeout was, and `once` leaves it empty.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// entry is what a logger gets for each line.
type entry struct {
	at    time.Time
	text  string
	isErr bool
}

// counter is the logger: it counts lines, and forgets them.
type counter struct{ lines atomic.Int64 }

func (c *counter) send(_ context.Context, entries ...entry) error {
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

// run runs one program to its end, in a session of its own.
func run(ctx context.Context, timeout time.Duration, log string, words []string, to send) (err error) {
	data := filepath.Join(filepath.Dir(os.Args[0]), "data")
	if err := os.MkdirAll(data, 0o700); err != nil {
		return err
	}
	file, err := os.OpenFile(log, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()

	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	cmd.Env = append(os.Environ(), "CODER_SCRIPT_DATA_DIR="+data)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.WaitDelay = 10 * time.Second
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGHUP) }
	out := &cutter{ctx: ctx, send: to}
	errs := &cutter{ctx: ctx, send: to, isErr: true}
	cmd.Stdout = io.MultiWriter(file, out)
	cmd.Stderr = io.MultiWriter(file, errs)
	if err := cmd.Start(); err != nil {
		return err
	}
	return errors.Join(cmd.Wait(), out.close(), errs.close())
}

func expect(err error, what string) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "gopeer: %s: %v\n", what, err)
		os.Exit(1)
	}
}

func number(text string) int {
	n, err := strconv.Atoi(text)
	expect(err, text)
	return n
}

type result struct {
	Total time.Duration   `json:"ns"`
	Each  []time.Duration `json:"each"`
	Lines int64           `json:"lines"`
}

func each(count int, timeout time.Duration, log string, words []string, to send) []time.Duration {
	times := []time.Duration{}
	for range count {
		began := time.Now()
		err := run(context.Background(), timeout, log, words, to)
		late := time.Since(began) - timeout
		times = append(times, late)
		if timeout == 0 {
			expect(err, words[0])
		} else if late < 0 {
			expect(errors.Join(errors.New("it ended before its timeout"), err), words[0])
		}
	}
	return times
}

func once(count int, directory string, words []string, to send) {
	var all sync.WaitGroup
	for n := range count {
		all.Add(1)
		go func() {
			defer all.Done()
			log := filepath.Join(directory, strconv.Itoa(n))
			expect(run(context.Background(), 0, log, words, to), words[0])
		}()
	}
	all.Wait()
}

func main() {
	arguments := os.Args
	if len(arguments) < 5 {
		fmt.Fprintln(os.Stderr, "usage: gopeer each COUNT TIMEOUT LOG PROGRAM [ARG...]\n"+
			"       gopeer once COUNT DIRECTORY PROGRAM [ARG...]")
		os.Exit(2)
	}
	var lines counter
	made := result{Each: []time.Duration{}}
	began := time.Now()
	if count := number(arguments[2]); arguments[1] == "each" {
		timeout := time.Duration(number(arguments[3])) * time.Millisecond
		made.Each = each(count, timeout, arguments[4], arguments[5:], lines.send)
	} else {
		once(count, arguments[3], arguments[4:], lines.send)
	}
	made.Total = time.Since(began)
	made.Lines = lines.lines.Load()
	expect(json.NewEncoder(os.Stdout).Encode(made), "result")
}
