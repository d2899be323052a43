package main

import (
	"encoding/xml"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// odd is a program in a folder with a name that needs quotes, with variables that do.
var odd = service{
	program: `/opt/my $"tools"\100%/satchel`, args: []string{"--keep", "8"},
	env: []string{`SATCHEL_HOME=/home/sam/100% "mine"`, "PATH=/usr/bin:/bin"},
}

// TestAgentUnit: .ci/run has systemd itself look at the units.
func TestAgentUnit(t *testing.T) {
	unit := odd.unit()
	for _, want := range []string{
		`ExecStart="/opt/my $$\"tools\"\\100%%/satchel" agent run "--keep" "8"`, `Environment="SATCHEL_HOME=/home/sam/100%% \"mine\""`,
		"Type=notify", "WatchdogSec=180", "Restart=always", "WantedBy=default.target", "NoNewPrivileges=yes",
	} {
		if !strings.Contains(unit, "\n"+want+"\n") {
			t.Errorf("no line %s in\n%s", want, unit)
		}
	}
	// What needs to be root is not in a user's unit: it would not start.
	for _, not := range []string{"User=", "Protect", "Private", "CapabilityBoundingSet"} {
		if strings.Contains(unit, "\n"+not) {
			t.Errorf("a user's unit has %s", not)
		}
	}
	system := odd
	system.system, system.user = true, "sam"
	unit = system.unit()
	for _, want := range []string{"User=sam", "ProtectSystem=full", "CapabilityBoundingSet=", "WantedBy=multi-user.target"} {
		if !strings.Contains(unit, "\n"+want+"\n") {
			t.Errorf("no line %s in\n%s", want, unit)
		}
	}
}

// TestAgentPlist: nothing here can run it, but it is XML, and says what it should.
func TestAgentPlist(t *testing.T) {
	text, err := odd.plist()
	if err != nil {
		t.Fatal(err)
	}
	var values []string
	d := xml.NewDecoder(strings.NewReader(text))
	for depth := 0; ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			if depth != 0 {
				t.Errorf("%d elements are not closed", depth)
			}
			break
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
		switch token := token.(type) {
		case xml.StartElement:
			depth++
		case xml.EndElement:
			depth--
		case xml.CharData:
			if v := strings.TrimSpace(string(token)); v != "" {
				values = append(values, v)
			}
		}
	}
	i := slices.Index(values, "ProgramArguments")
	want := []string{odd.program, "agent", "run", "--keep", "8", "EnvironmentVariables", "SATCHEL_HOME", `/home/sam/100% "mine"`, "PATH", "/usr/bin:/bin"}
	if i < 0 || len(values) < i+1+len(want) {
		t.Fatalf("got %q", values)
	}
	if diff := cmp.Diff(want, values[i+1:i+1+len(want)]); diff != "" {
		t.Error(diff)
	}
}
