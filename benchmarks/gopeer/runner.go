// runner.go: what Coder's agent does for a script.
//
// For each one it finds the log's name, makes the directories, looks up the user's shell, merges the
// environment, has one goroutine for the script, one that waits for the process, one for the context, one for
// each pipe and one for the report of its end, and writes two records to the agent's log. So does this, but the
// shell comes from the arguments and the records are below the log's level.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// script is one that a runner runs.
type script struct {
	id      [16]byte
	log     string
	text    string
	timeout time.Duration
}

// report is what is said of a script's end.
type report struct {
	id         []byte
	start, end time.Time
	exitCode   int
}

type runner struct {
	data    string
	shell   string
	scripts []script
	lines   *counter
	logger  *slog.Logger

	started, succeeded, failed, reported atomic.Int64
	running                              sync.WaitGroup
}

// execute runs all scripts side by side, and returns when the last one has ended.
func (r *runner) execute(ctx context.Context) error {
	var all sync.WaitGroup
	failures := make([]error, len(r.scripts))
	for n := range r.scripts {
		all.Add(1)
		go func() {
			defer all.Done()
			failures[n] = r.count(r.run(ctx, r.scripts[n]))
		}()
	}
	all.Wait()
	return errors.Join(failures...)
}

// add takes another script.
func (r *runner) add(text, log string, timeout time.Duration) {
	// A script keeps its id, and with it its directory, when the agent starts anew.
	id := [16]byte{14: byte(len(r.scripts) >> 8), 15: byte(len(r.scripts))}
	r.scripts = append(r.scripts, script{id, log, text, timeout})
}

func (r *runner) count(err error) error {
	if err == nil {
		r.succeeded.Add(1)
	} else {
		r.failed.Add(1)
	}
	return err
}

// run runs one script to its end, in a session of its own.
func (r *runner) run(ctx context.Context, script script) (err error) {
	log, err := r.logPath(script)
	if err != nil {
		return err
	}
	data := filepath.Join(r.data, fmt.Sprintf("%x", script.id))
	for _, directory := range []string{data, filepath.Dir(log)} {
		if err := os.MkdirAll(directory, 0o700); err != nil {
			return err
		}
	}
	logger := r.logger.With("id", script.id, "log", log, "data", data)
	logger.Info("running a script", "script", script.text)
	file, err := os.OpenFile(log, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()

	if script.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, script.timeout)
		defer cancel()
	}
	cmd, err := r.command(ctx, script.text, data)
	if err != nil {
		return err
	}
	out := &cutter{ctx: ctx, send: r.lines.send}
	errs := &cutter{ctx: ctx, send: r.lines.send, isErr: true}
	cmd.Stdout = io.MultiWriter(file, out)
	cmd.Stderr = io.MultiWriter(file, errs)

	start := time.Now().UTC()
	if err := cmd.Start(); err != nil {
		return err
	}
	r.started.Add(1)
	done := make(chan error, 1)
	r.running.Add(1)
	go func() {
		defer r.running.Done()
		done <- cmd.Wait()
	}()
	select {
	case <-ctx.Done():
		<-done
		err = ctx.Err()
	case err = <-done:
	}
	err = errors.Join(err, out.close(), errs.close())
	end := time.Now().UTC()
	logger.Info(log+" ended", "took", end.Sub(start), "exit_code", cmd.ProcessState.ExitCode())
	r.running.Add(1)
	go func() {
		defer r.running.Done()
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		r.tell(ctx, report{script.id[:], start, end, cmd.ProcessState.ExitCode()})
	}()
	return err
}

func (r *runner) tell(context.Context, report) { r.reported.Add(1) }

func (r *runner) logPath(script script) (string, error) {
	log := script.log
	if strings.HasPrefix(log, "~") {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", err
		}
		log = filepath.Join(home, log[1:])
	}
	return filepath.Abs(os.ExpandEnv(log))
}

func (r *runner) command(ctx context.Context, text, data string) (*exec.Cmd, error) {
	who, err := user.Current()
	if err != nil {
		return nil, err
	}
	if _, err := loginShell(who.Username); err != nil {
		return nil, err
	}
	home, err := os.UserHomeDir()
	if err != nil {
		home = who.HomeDir
	}
	if _, err := os.Stat(home); err != nil {
		return nil, err
	}
	environment, err := r.environment(who.Username)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, r.shell, "-c", text)
	cmd.Dir = home
	cmd.Env = append(environment, "CODER_SCRIPT_DATA_DIR="+data, "CODER_SCRIPT_BIN_DIR="+r.bin())
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.WaitDelay = 10 * time.Second
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGHUP) }
	return cmd, nil
}

func (r *runner) bin() string { return filepath.Join(r.data, "bin") }

// loginShell looks up a user's shell, which that agent does anew for each script.
func loginShell(user string) (string, error) {
	users, err := os.ReadFile("/etc/passwd")
	if err != nil {
		return "", err
	}
	for _, line := range strings.Split(string(users), "\n") {
		if strings.HasPrefix(line, user+":") {
			return line[strings.LastIndexByte(line, ':')+1:], nil
		}
	}
	return os.Getenv("SHELL"), nil
}

// environment merges the agent's own variables with what it tells each script.
func (r *runner) environment(user string) ([]string, error) {
	agent, err := os.Executable()
	if err != nil {
		return nil, err
	}
	merged := map[string]string{
		"CODER":                               "true",
		"CODER_WORKSPACE_NAME":                "benchmark",
		"CODER_WORKSPACE_AGENT_NAME":          "main",
		"CODER_AGENT_TOKEN":                   "none",
		"GIT_SSH_COMMAND":                     fmt.Sprintf("%s gitssh --", agent),
		"CS_DISABLE_GETTING_STARTED_OVERRIDE": "true",
	}
	nobody := "0.0.0.0 0"
	current := append(os.Environ(), "USER="+user, "SSH_CLIENT="+nobody+" 0",
		fmt.Sprintf("SSH_CONNECTION=%s %s", nobody, nobody))
	for _, pair := range current {
		key, value, found := strings.Cut(pair, "=")
		if _, known := merged[key]; found && !known {
			merged[key] = value
		}
	}
	merged["PATH"] = r.bin() + string(filepath.ListSeparator) + merged["PATH"]
	pairs := make([]string, 0, len(merged)+2)
	for key, value := range merged {
		pairs = append(pairs, fmt.Sprintf("%s=%s", key, value))
	}
	return pairs, nil
}
