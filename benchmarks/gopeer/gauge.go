// gauge.go: what the kernel says of this process.
package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
)

// gauge is what this process holds; memory in bytes, descriptors without the one that lists them.
type gauge struct{ memory, peak, threads, descriptors float64 }

func look() gauge {
	status, err := os.ReadFile("/proc/self/status")
	expect(err, "status")
	open, err := os.ReadDir("/proc/self/fd")
	expect(err, "descriptors")
	return gauge{
		memory:      1024 * field(status, "VmRSS"),
		peak:        1024 * field(status, "VmHWM"),
		threads:     field(status, "Threads"),
		descriptors: float64(len(open) - 1),
	}
}

// field finds the number of a line such as "VmRSS:     1234 kB".
func field(status []byte, name string) float64 {
	_, after, found := bytes.Cut(status, []byte("\n"+name+":"))
	words := bytes.Fields(after)
	if !found || len(words) == 0 {
		expect(fmt.Errorf("no %s", name), "status")
	}
	number, err := strconv.ParseFloat(string(words[0]), 64)
	expect(err, name)
	return number
}
