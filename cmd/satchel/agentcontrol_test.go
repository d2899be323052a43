//go:build unix

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/satchel-backup/satchel/internal/control"
	"github.com/satchel-backup/satchel/internal/durable"
)

// asks asks the agent of the person, and decodes the answer.
func (p *person) asks(method, path string, body any, into any) int {
	p.t.Helper()
	var r io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			p.t.Fatal(err)
		}
		r = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(p.t.Context(), method, "http://satchel"+path, r)
	if err != nil {
		p.t.Fatal(err)
	}
	if method == "POST" {
		req.Header.Set("Content-Type", "application/json")
	}
	return p.sends(req, into)
}

func (p *person) sends(req *http.Request, into any) int {
	p.t.Helper()
	path := filepath.Join(p.dir, "device", "agent", "control.sock")
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		// It watches wallets before it listens.
		c, err := net.Dial("unix", path)
		if err == nil {
			c.Close()
			break
		}
		if time.Since(began) > 10*time.Second {
			p.t.Fatal(err)
		}
	}
	res, err := control.Client(path).Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	switch into := into.(type) {
	case nil:
	case *[]byte:
		*into = data
	default:
		if err := json.Unmarshal(data, into); err != nil {
			p.t.Fatalf("%v: %s", err, data)
		}
	}
	return res.StatusCode
}

type putItem struct {
	Name     string `json:"name"`
	Value    []byte `json:"value,omitempty"`
	Required bool   `json:"required,omitempty"`
	Remove   bool   `json:"remove,omitempty"`
}

func puts1(items ...putItem) any { return map[string]any{"items": items} }

// A program backs up through the agent: its values are journalled when it is answered,
// and it can wait until they are protected.
func TestAgentPut(t *testing.T) {
	t.Parallel()
	p := newPerson(t)
	ann, _ := p.makes("Ann")
	w := p.agent()
	started := w.of(ann, "watching", "")
	path := "/v1/wallets/" + ann
	var put putAnswer
	if status := p.asks("POST", path+"/put?wait=protected", puts1(putItem{Name: "lightning/monitors/1", Value: []byte("one")}, putItem{Name: "settings", Value: []byte("s"), Required: true}), &put); status != 200 || !put.Protected || !put.Journalled || put.Generation != 2 {
		t.Fatalf("got %d, %+v", status, put)
	}
	w.of(ann, "saved", "lightning/monitors/1")
	var value []byte
	if status := p.asks("GET", path+"/item?name=lightning/monitors/1", nil, &value); status != 200 || string(value) != "one" {
		t.Errorf("got %d, %q", status, value)
	}
	if got := p.does(0, "get", "lightning/monitors/1"); got != "one" {
		t.Errorf("got %q", got)
	}
	// A program may name a wallet by the beginning of its name.
	var items struct{ Items []itemJSON }
	if status := p.asks("GET", "/v1/wallets/Ann/items", nil, &items); status != 200 || len(items.Items) != 4 {
		t.Errorf("got %d, %+v", status, items)
	}

	// The place goes away: kept here, said so, and protected when it is back.
	rename(t, filepath.Join(p.dir, "elsewhere"), filepath.Join(p.dir, "away"))
	one := puts1(putItem{Name: "lightning/monitors/1", Value: []byte("two")})
	if status := p.asks("POST", path+"/put", one, &put); status != 202 || put.Protected || put.Generation != 3 || put.Places[0].Code != 27 {
		t.Errorf("got %d, %+v", status, put)
	}
	if status := p.asks("POST", path+"/put?wait=protected&timeout=200ms", one, &put); status != 202 || put.Protected {
		t.Errorf("got %d, %+v", status, put)
	}
	if p.asks("GET", path+"/item?name=lightning/monitors/1", nil, &value); string(value) != "two" {
		t.Errorf("got %q", value)
	}
	// Killed at once after the answer: nothing is lost.
	if status := p.asks("POST", path+"/put", puts1(putItem{Name: "lightning/monitors/2", Value: []byte("three")}), &put); status != 202 {
		t.Errorf("got %d, %+v", status, put)
	}
	w.ends(syscall.SIGKILL, -1)
	if got := p.does(0, "get", "lightning/monitors/2"); got != "three" {
		t.Errorf("got %q", got)
	}
	w = p.agent()
	if again := w.of(ann, "watching", ""); again.ID <= started.ID {
		t.Errorf("the ids begin anew: %d after %d", again.ID, started.ID)
	}
	waited := make(chan putAnswer, 1)
	go func() {
		var put putAnswer
		p.asks("POST", path+"/put?wait=protected&timeout=1m", puts1(putItem{Name: "settings", Value: []byte("t")}), &put)
		waited <- put
	}()
	w.of(ann, "saved", "settings")
	rename(t, filepath.Join(p.dir, "away"), filepath.Join(p.dir, "elsewhere"))
	var asked askAnswer
	if status := p.asks("POST", path+"/sync", nil, &asked); status != 200 || !asked.Protected || asked.Code != 0 {
		t.Errorf("got %d, %+v", status, asked)
	}
	if put := <-waited; !put.Protected {
		t.Errorf("got %+v", put)
	}
	if status := p.asks("POST", path+"/check", nil, &asked); status != 200 || !asked.Protected || asked.Objects == 0 || len(asked.Findings) > 0 {
		t.Errorf("got %d, %+v", status, asked)
	}
	w.of(ann, "checked", "")
	if status := p.asks("POST", path+"/put?wait=protected", puts1(putItem{Name: "lightning/monitors/1", Remove: true}), &put); status != 200 {
		t.Errorf("got %d, %+v", status, put)
	}
	if status := p.asks("GET", path+"/item?name=lightning/monitors/1", nil, nil); status != 404 {
		t.Errorf("got %d", status)
	}
	w.ends(syscall.SIGTERM, 0)
	p.does(0, "check")
}

// What is refused, and how.
func TestAgentRefuses(t *testing.T) {
	t.Parallel()
	p := newPerson(t)
	ann, _ := p.makes("Ann")
	w := p.agent()
	w.of(ann, "watching", "")
	path := "/v1/wallets/" + ann
	for _, c := range []struct {
		method, path string
		body         any
		status, code int
	}{
		{"GET", path + "/item?name=keys", nil, 403, 1},
		{"GET", path + "/item?name=descriptors", nil, 403, 1},
		{"POST", path + "/put", puts1(putItem{Name: "keys", Value: []byte("x")}), 403, 1},
		{"POST", path + "/put", puts1(putItem{Name: "../x", Value: []byte("x")}), 400, 2},
		{"POST", path + "/put", puts1(), 400, 2},
		{"POST", path + "/put", puts1(putItem{Name: "a"}, putItem{Name: "a"}), 400, 2},
		{"POST", path + "/put", puts1(putItem{Name: "a", Value: []byte("x"), Remove: true}), 400, 2},
		{"POST", path + "/put", puts1(putItem{Name: "labels", Value: make([]byte, 20<<20)}), 413, 2},
		{"POST", path + "/put?wait=forever", puts1(putItem{Name: "a"}), 400, 2},
		{"POST", path + "/put?wait=protected&timeout=1h", puts1(putItem{Name: "a"}), 400, 2},
		{"POST", "/v1/wallets/Bob/put", puts1(putItem{Name: "a"}), 404, 2},
		{"GET", path + "/item?name=nothing", nil, 404, 1},
		{"GET", "/v2/wallets", nil, 404, 2},
		{"DELETE", path, nil, 404, 2},
		{"GET", "/v1/events?since=x", nil, 400, 2},
	} {
		var e errorJSON
		if status := p.asks(c.method, c.path, c.body, &e); status != c.status || e.Code != c.code || e.Error == "" {
			t.Errorf("%s %s: got %d, %+v, want %d and code %d", c.method, c.path, status, e, c.status, c.code)
		}
	}
	// What a page in a browser could send.
	for name, change := range map[string]func(r *http.Request){
		"an origin":       func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") },
		"another host":    func(r *http.Request) { r.Host = "localhost:1234" },
		"a form":          func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") },
		"what it fetches": func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") },
	} {
		req, err := http.NewRequest("POST", "http://satchel"+path+"/put", strings.NewReader(`{"items":[{"name":"settings","value":"eA=="}]}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		change(req)
		var e errorJSON
		if status := p.sends(req, &e); status != 403 && status != 415 || e.Error == "" {
			t.Errorf("%s: got %d, %+v", name, status, e)
		}
	}
	if got := p.does(0, "items"); strings.Contains(got, "settings") {
		t.Errorf("something was saved: %s", got)
	}
	// Only this user can open it.
	info, err := os.Stat(filepath.Join(p.dir, "device", "agent", "control.sock"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v", info, err)
	}
	info, err = os.Stat(filepath.Join(p.dir, "device", "agent"))
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("got %v, %v", info, err)
	}
	w.ends(syscall.SIGTERM, 0)
	if _, err := net.Dial("unix", filepath.Join(p.dir, "device", "agent", "control.sock")); err == nil {
		t.Error("it is still there")
	}
}

// Events can be asked for again, from any one on, and the agent's state is told.
func TestAgentEvents(t *testing.T) {
	t.Parallel()
	p := newPerson(t)
	if out := p.does(3, "agent", "status"); !strings.Contains(out, "No satchel agent is running") {
		t.Errorf("got %s", out)
	}
	ann, _ := p.makes("Ann")
	w := p.agent()
	w.of(ann, "watching", "")
	read := func(query string) (list []eventJSON) {
		t.Helper()
		var data []byte
		if status := p.asks("GET", "/v1/events?follow=false"+query, nil, &data); status != 200 {
			t.Fatalf("got %d, %s", status, data)
		}
		for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
			var e eventJSON
			if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
				t.Fatalf("%v: %s", err, lines.Bytes())
			}
			list = append(list, e)
		}
		return list
	}
	list := read("&since=0")
	if len(list) < 2 || list[0].Event != "started" || list[1].Wallet != ann || list[1].ID <= list[0].ID {
		t.Fatalf("got %+v", list)
	}
	if again := read(fmt.Sprintf("&since=%d", list[0].ID)); len(again) == 0 || again[0].ID != list[1].ID {
		t.Errorf("got %+v", again)
	}
	if none := read(""); len(none) != 0 {
		t.Errorf("got %+v", none)
	}
	if own := read("&since=0&wallet=" + ann); len(own) == 0 || own[0].Wallet != ann {
		t.Errorf("got %+v", own)
	}
	var health healthJSON
	if status := p.asks("GET", "/v1/health", nil, &health); status != 200 || !health.OK || health.Wallets != 1 || health.PID != w.cmd.Process.Pid {
		t.Errorf("got %d, %+v", status, health)
	}
	if out := p.does(0, "agent", "status"); !strings.Contains(out, ann) || !strings.Contains(out, "watching   protected, generation 1") {
		t.Errorf("got %s", out)
	}
	if out := p.does(0, "agent", "status", "--json"); strings.Count(out, "\n") != 2 || !strings.Contains(out, `"state":"watching"`) {
		t.Errorf("got %s", out)
	}
	// A wallet that is in use for long: the agent tells how it stands.
	lock, err := durable.Disk{}.Lock(filepath.Join(p.dir, "device", "wallets", ann, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	if out := p.does(0, "status"); !strings.Contains(out, "Protected: generation 1") || !strings.Contains(out, "recovery code") {
		t.Errorf("got %s", out)
	}
	if out := p.does(0, "status", "--json"); !strings.Contains(out, `"protected":true`) || !strings.Contains(out, `"name":"`+ann+`"`) {
		t.Errorf("got %s", out)
	}
	if err := lock.Unlock(); err != nil {
		t.Fatal(err)
	}
	rename(t, filepath.Join(p.dir, "elsewhere"), filepath.Join(p.dir, "away"))
	p.does(27, "put", "settings", filepath.Join(p.dir, "device", "config.json"))
	w.of(ann, "late", "")
	if out := p.does(3, "agent", "status"); !strings.Contains(out, "NOT protected, generation 2") {
		t.Errorf("got %s", out)
	}
	w.ends(syscall.SIGTERM, 0)
}

// The example in another language.
func TestAgentPython(t *testing.T) {
	t.Parallel()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("no python3 here")
	}
	p := newPerson(t)
	ann, _ := p.makes("Ann")
	runs := func(code int, stdin string, args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), python, append([]string{filepath.Join("..", "..", "examples", "agent.py")}, args...)...)
		cmd.Env, cmd.Stdin = p.env(), strings.NewReader(stdin)
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != code {
			t.Fatalf("%v: %v, want code %d: %s", args, err, code, out)
		}
		return string(out)
	}
	if out := runs(1, "", "status"); out != "agent: none is running for this user\n" {
		t.Errorf("got %q", out)
	}
	w := p.agent()
	w.of(ann, "watching", "")
	if out := runs(0, "", "status"); out != ann+" watching protected\n" {
		t.Errorf("got %q", out)
	}
	if out := runs(0, "one\x00two", "put", ann, "lightning/monitors/1"); out != "generation 2: protected\n" {
		t.Errorf("got %q", out)
	}
	if out := runs(0, "", "get", ann, "lightning/monitors/1"); out != "one\x00two" {
		t.Errorf("got %q", out)
	}
	if out := runs(1, "", "get", ann, "keys"); !strings.Contains(out, "gives out no keys") {
		t.Errorf("got %q", out)
	}
	events := exec.CommandContext(t.Context(), python, filepath.Join("..", "..", "examples", "agent.py"), "events")
	events.Env = p.env()
	out, err := events.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := events.Start(); err != nil {
		t.Fatal(err)
	}
	heard := make(chan string, 1)
	go func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if strings.Contains(lines.Text(), `"saved"`) {
				heard <- lines.Text()
				return
			}
		}
		heard <- ""
	}()
	for i := 0; ; i++ {
		runs(0, fmt.Sprint(i), "put", ann, "settings")
		select {
		case line := <-heard:
			if !strings.Contains(line, `"settings"`) {
				t.Errorf("got %q", line)
			}
			events.Process.Kill()
			events.Wait()
			w.ends(syscall.SIGTERM, 0)
			return
		case <-time.After(100 * time.Millisecond): // It may not listen yet.
		}
	}
}
