// gopeer does for scripts what Coder's agent, a program in Go, does, with Go's standard library alone.
//
//	gopeer each [FLAG...] COUNT LOG SHELL SCRIPT          one after the other
//	gopeer once [FLAG...] COUNT DIRECTORY SHELL SCRIPT    all at once, each with a log of its own in DIRECTORY
//	gopeer hold [FLAG...] COUNT DIRECTORY SHELL SCRIPT    so, to see what they take while they run
//
// It prints one line of JSON: "ns", the whole time; "each", what each one took, or how late its timeout was;
// "lines"; "failed", how many ended otherwise than they had to; "peak", the bytes of memory at most, beyond those
// at the beginning; and for `hold` "memory" in bytes, "threads" and "descriptors" of each script.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"time"
)

type result struct {
	Total       time.Duration   `json:"ns"`
	Each        []time.Duration `json:"each"`
	Lines       int64           `json:"lines"`
	Failed      int             `json:"failed"`
	Peak        float64         `json:"peak"`
	Memory      float64         `json:"memory"`
	Threads     float64         `json:"threads"`
	Descriptors float64         `json:"descriptors"`
}

func expect(err error, what string) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "gopeer: %s: %v\n", what, err)
		os.Exit(1)
	}
}

// each executes the one script so often.
func (r *result) each(made *runner, count int) {
	timeout := made.scripts[0].timeout
	for range count {
		began := time.Now()
		err := made.execute(context.Background())
		r.Each = append(r.Each, time.Since(began)-timeout)
		if (err != nil) != (timeout > 0) {
			r.Failed++
		}
	}
}

// once executes all of them.
func (r *result) once(made *runner) {
	if made.execute(context.Background()) != nil {
		r.Failed = int(made.failed.Load())
	}
}

// hold executes all of them, and ends them when it has seen what they take.
func (r *result) hold(made *runner) {
	ctx, cancel := context.WithCancel(context.Background())
	runtime.GC()
	before, count := look(), len(made.scripts)
	done := make(chan error)
	go func() { done <- made.execute(ctx) }()
	for made.started.Load() < int64(count) {
		time.Sleep(20 * time.Millisecond)
	}
	time.Sleep(200 * time.Millisecond)
	now := look()
	cancel()
	<-done
	r.Memory = (now.memory - before.memory) / float64(count)
	r.Threads = (now.threads - before.threads) / float64(count)
	r.Descriptors = (now.descriptors - before.descriptors) / float64(count)
}

func main() {
	flags := flag.NewFlagSet("gopeer", flag.ExitOnError)
	timeout := flags.Duration("timeout", 0, "of each script; 0: none")
	delay := flags.Duration("delay", 0, "that the logger takes for each line")
	if len(os.Args) < 2 || flags.Parse(os.Args[2:]) != nil || flags.NArg() != 4 {
		fmt.Fprintln(os.Stderr, "usage: gopeer each|once|hold [FLAG...] COUNT LOG|DIRECTORY SHELL SCRIPT")
		os.Exit(2)
	}
	mode, place, text := os.Args[1], flags.Arg(1), flags.Arg(3)
	count, err := strconv.Atoi(flags.Arg(0))
	expect(err, flags.Arg(0))
	made := &runner{
		data:   filepath.Join(filepath.Dir(os.Args[0]), "data"),
		shell:  flags.Arg(2),
		lines:  &counter{delay: *delay},
		logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	if mode == "each" {
		made.add(text, place, *timeout)
	} else {
		for n := range count {
			made.add(text, filepath.Join(place, strconv.Itoa(n)), *timeout)
		}
	}
	got := result{Each: []time.Duration{}}
	before, began := look(), time.Now()
	switch mode {
	case "each":
		got.each(made, count)
	case "once":
		got.once(made)
	case "hold":
		got.hold(made)
	}
	got.Total = time.Since(began)
	made.running.Wait()
	got.Peak = look().peak - before.memory
	got.Lines = made.lines.lines.Load()
	expect(json.NewEncoder(os.Stdout).Encode(got), "result")
}
