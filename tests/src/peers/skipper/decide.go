// Makes decisions with Skipper's Open Policy Agent filter, without HTTP, and tells what they cost.
//
// decide CONFIG APP sync|async DECISIONS SEED
//
// The first half of the decisions warms up. What is printed, as JSON, is about the second half: time
// and memory of the deciding goroutine's calls, and the processor time of the whole process until
// its registry is closed, all uploads included.
package main

import (
	"encoding/json"
	"fmt"
	"math/rand"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/zalando/skipper/filters"
	"github.com/zalando/skipper/filters/filtertest"
	"github.com/zalando/skipper/filters/openpolicyagent"
	"github.com/zalando/skipper/filters/openpolicyagent/opaauthorizerequest"
	"github.com/zalando/skipper/metrics/metricstest"
)

type figures struct {
	WallNs  float64 `json:"wall_ns"`
	Allocs  float64 `json:"allocs"`
	Bytes   float64 `json:"bytes"`
	CPUNs   float64 `json:"cpu_ns"`
	Allowed int     `json:"allowed"`
}

func main() {
	if len(os.Args) != 6 {
		fail(fmt.Errorf("expected CONFIG APP sync|async DECISIONS SEED"))
	}
	count, err := strconv.Atoi(os.Args[4])
	check(err)
	seed, err := strconv.ParseInt(os.Args[5], 10, 64)
	check(err)
	registry, err := openpolicyagent.NewOpenPolicyAgentRegistry(
		openpolicyagent.WithOpenPolicyAgentInstanceConfig(
			openpolicyagent.WithConfigTemplateFile(os.Args[1])),
		openpolicyagent.WithAsyncDecisionLogging(os.Args[3] == "async"),
		openpolicyagent.WithInstanceStartupTimeout(30*time.Second),
	)
	check(err)
	filter, err := opaauthorizerequest.NewOpaAuthorizeRequestSpec(registry).
		CreateFilter([]interface{}{os.Args[2]})
	check(err)

	random := rand.New(rand.NewSource(seed))
	decide(filter, random, count/2)
	pause()

	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	cpu, start := cpuTime(), time.Now()
	measured := count - count/2
	allowed := decide(filter, random, measured)
	wall := time.Since(start)
	runtime.ReadMemStats(&after)
	pause()
	registry.Close()
	per := float64(measured)
	text, err := json.Marshal(figures{
		WallNs:  float64(wall.Nanoseconds()) / per,
		Allocs:  float64(after.Mallocs-before.Mallocs) / per,
		Bytes:   float64(after.TotalAlloc-before.TotalAlloc) / per,
		CPUNs:   float64((cpuTime() - cpu).Nanoseconds()) / per,
		Allowed: allowed,
	})
	check(err)
	fmt.Println(string(text))
}

// Longer than the longest delay of the configuration's uploads.
func pause() { time.Sleep(3 * time.Second) }

func decide(filter filters.Filter, random *rand.Rand, count int) int {
	allowed := 0
	for range count {
		ctx := &filtertest.Context{
			FStateBag: map[string]interface{}{},
			FResponse: &http.Response{},
			FRequest:  request(random),
			FMetrics:  &metricstest.MockMetrics{},
		}
		filter.Request(ctx)
		if !ctx.FServed {
			allowed++
		}
	}
	return allowed
}

func request(random *rand.Rand) *http.Request {
	pick := func(of ...string) string { return of[random.Intn(len(of))] }
	id := func() string {
		return fmt.Sprintf("%08x-%04x-%04x-%04x-%012x", random.Uint32(), random.Intn(1<<16),
			random.Intn(1<<16), random.Intn(1<<16), random.Int63n(1<<48))
	}
	user := pick("alice", "bob", "carol", "dave", "erin")
	path := fmt.Sprintf("/orders/%d/items/%d", random.Intn(1_000_000), random.Intn(100))
	header := http.Header{}
	for _, pair := range [][2]string{
		{"Accept", pick("application/json", "*/*", "application/json, text/plain, */*")},
		{"Accept-Encoding", "gzip, deflate, br"},
		{"Accept-Language", pick("en-US,en;q=0.9", "de-DE,de;q=0.9,en;q=0.8", "fr-FR,fr;q=0.9")},
		{"Authorization", "Bearer " + id() + id() + id() + id()},
		{"Cache-Control", "no-cache"},
		{"Content-Type", "application/json"},
		{"Origin", "https://shop.example.com"},
		{"Referer", "https://shop.example.com" + path},
		{"User-Agent", pick("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/138.0.0.0 Safari/537.36",
			"Mozilla/5.0 (Macintosh; Intel Mac OS X 14_5) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Safari/605.1.15",
			"okhttp/4.12.0")},
		{"X-B3-Spanid", fmt.Sprintf("%016x", random.Uint64())},
		{"X-B3-Traceid", fmt.Sprintf("%016x%016x", random.Uint64(), random.Uint64())},
		{"X-Flow-Id", id()},
		{"X-Forwarded-For", fmt.Sprintf("10.2.%d.%d", random.Intn(256), random.Intn(256))},
		{"X-Request-Id", id()},
		{"X-User", user},
	} {
		header.Set(pair[0], pair[1])
	}
	return &http.Request{
		Method: pick("GET", "GET", "GET", "POST"), Host: "shop.example.com", Header: header,
		URL:    &url.URL{Scheme: "http", Host: "shop.example.com", Path: path, RawQuery: "page=" + strconv.Itoa(random.Intn(50))},
		Proto:  "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		RemoteAddr: fmt.Sprintf("10.2.%d.%d:%d", random.Intn(256), random.Intn(256), 1024+random.Intn(60000)),
	}
}

func cpuTime() time.Duration {
	var usage syscall.Rusage
	check(syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func check(err error) {
	if err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
