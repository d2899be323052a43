package main

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/satchel-backup/satchel"
	"github.com/satchel-backup/satchel/internal/agent"
	"github.com/satchel-backup/satchel/source/file"
)

// event is something that happened to a wallet, or to the agent itself. All of them pass
// one place: supervisor.tell of an agent, or print of a "satchel watch" alone.
type event struct {
	JSON eventJSON    // for a program; JSON.Wallet says whose it is
	Line string       // for a person
	Told *agent.Event // what the loop around the backup told, if it was that
	Err  error        // that JSON.Error tells; nil if there is none, or it is known as text only
}

// eventJSON is an event of "satchel watch" or of "satchel agent" for a program.
type eventJSON struct {
	ID     uint64    `json:"id,omitempty"`     // of the agent's, each greater than the last
	Wallet string    `json:"wallet,omitempty"` // as "satchel status" names it; of the agent's, and "" for what concerns none
	Time   time.Time `json:"time"`
	Event  string    `json:"event"`
	standing
	Items    []string      `json:"items,omitempty"`
	Removed  []string      `json:"removed,omitempty"`
	Healed   []string      `json:"healed,omitempty"`
	Paths    []string      `json:"paths,omitempty"`
	Path     string        `json:"path,omitempty"`
	Objects  int           `json:"objects,omitempty"`
	Bytes    int64         `json:"bytes,omitempty"`
	Findings []findingJSON `json:"findings,omitempty"`
	Since    *time.Time    `json:"since,omitempty"`
	Error    string        `json:"error,omitempty"`
	Code     int           `json:"code,omitempty"`
	Text     string        `json:"text,omitempty"` // for a person; of the agent's
}

// standing is how the backup stands at an event.
type standing struct {
	Generation uint64      `json:"generation,omitempty"`
	Protected  *bool       `json:"protected,omitempty"`
	Places     []placeJSON `json:"places,omitempty"`
}

func standingOf(s satchel.Status) standing {
	return standing{s.Generation, &s.Protected, placesJSON(s.Places)}
}

// event tells an event.
func (w *watch) event(e eventJSON, line string) { w.tell(event{JSON: e, Line: line}) }

// print prints an event: a line for a person, an object for a program.
func (w *watch) print(e event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.app.printEvent(e)
}

func (a *app) printEvent(e event) {
	a.say("%s %s", e.JSON.Time.Local().Format(time.TimeOnly), e.Line)
	e.JSON.Time = e.JSON.Time.UTC().Truncate(time.Millisecond)
	if err := a.emit(e.JSON); err != nil && a.unsaid == nil {
		a.unsaid = unread(fmt.Errorf("writing the result: %w", err))
	}
}

// report tells an event of the loop around the backup.
func (w *watch) report(e agent.Event) {
	j := eventJSON{
		Time: e.Time, Event: string(e.Kind), standing: standing{e.Generation, &e.Protected, placesJSON(e.Places)},
		Items: e.Items, Removed: e.Removed, Healed: e.Healed, Objects: e.Report.Objects, Bytes: e.Report.Bytes, Since: stamp(e.Since),
	}
	if e.Kind == agent.Checked {
		w.checkAt = e.Time.Add(w.every)
	}
	if e.Kind == agent.Pruned {
		j.Objects, j.Bytes = e.Pruned.Objects, e.Pruned.Bytes
	}
	for _, f := range e.Report.Findings {
		j.Findings = append(j.Findings, findingOf(f))
	}
	if e.Err != nil {
		j.Error, j.Code = errorText(e.Err), int(codeOf(e.Err))
	}
	w.tell(event{JSON: j, Line: eventLine(e), Told: &e, Err: e.Err})
}

// neverKept reports whether something is left out by its kind, not because of a failure.
func neverKept(e *file.SkippedError) bool {
	return errors.Is(e, file.ErrLink) || errors.Is(e, file.ErrNotRegular) || errors.Is(e, file.ErrBackup) || errors.Is(e, file.ErrOwnOutput)
}

// leftWhy says why something is left out, and what helps where that is not plain.
func leftWhy(e *file.SkippedError) string {
	why := strings.TrimPrefix(errorText(e), "file not kept: ")
	switch {
	case errors.Is(e, fs.ErrNotExist):
		return "it is not there"
	case errors.Is(e, file.ErrName):
		return why + "; all others are saved; to save it too, give it or a folder above it another, shorter name"
	}
	return why
}

// leftOut prints that a file is not kept, once as long as nothing changes.
func (w *watch) leftOut(e *file.SkippedError) {
	w.mu.Lock()
	if !neverKept(e) {
		w.failed++
	}
	key := e.Path + "\x00" + e.Error()
	said := w.told[key]
	if w.told == nil || len(w.told) > maxTold {
		w.told = map[string]bool{}
	}
	w.told[key] = true
	w.mu.Unlock()
	if said {
		return
	}
	why := leftWhy(e)
	w.event(eventJSON{Time: w.app.now(), Event: "left out", Path: e.Path, Error: why, Code: int(satchel.CodeFailed)},
		fmt.Sprintf("left out %s: %s", printable(e.Path), why))
}

// often prints once a day that a file changes all the time.
func (w *watch) often(path string) {
	now := w.app.now()
	w.mu.Lock()
	said, ok := w.busy[path]
	if w.busy == nil || len(w.busy) > maxTold {
		w.busy = map[string]time.Time{}
	}
	again := !ok || now.Sub(said) >= 24*time.Hour
	if again {
		w.busy[path] = now
	}
	w.mu.Unlock()
	if again {
		w.event(eventJSON{Time: now, Event: "changes often", Path: path},
			fmt.Sprintf("%s changes all the time and fills the places: it is saved only now and then; if it need not be saved, move it elsewhere", printable(path)))
	}
}

// watching says what is watched and where it goes.
func (w *watch) watching(rec watchRecord, s satchel.Status) string {
	what := "watching no files"
	if paths := rec.all(); len(paths) > 0 {
		what = "watching " + printable(strings.Join(paths, ", "))
	}
	switch {
	case rec.LND != nil && len(rec.Paths) == 0:
		what = "watching " + nodeName(*rec.LND)
	case rec.LND != nil:
		what += ", " + nodeName(*rec.LND)
	}
	var where []string
	for _, p := range s.Places {
		where = append(where, printable(p.Address))
	}
	return fmt.Sprintf("%s; %s is kept in %s", what, printable(s.Label), strings.Join(where, ", "))
}

// eventLine is an event as one line.
func eventLine(e agent.Event) string {
	if e.Kind != agent.Healed && len(e.Healed) > 0 {
		healed := e.Healed
		e.Healed = nil
		return eventLine(e) + "; put back what " + printable(strings.Join(healed, ", ")) + " had lost"
	}
	what := itemNames("", e.Items)
	if len(e.Removed) > 0 {
		if what != "" {
			what += ", "
		}
		what += itemNames("removal of ", e.Removed)
	}
	switch e.Kind {
	case agent.Saved:
		return fmt.Sprintf("saved %s, generation %d: %s", what, e.Generation, stands(e))
	case agent.NotSaved:
		return fmt.Sprintf("not saved: %s: %s; trying again", what, errorText(e.Err))
	case agent.Late:
		if trouble := troubleOf(e); trouble != "" || e.Err == nil {
			return fmt.Sprintf("generation %d: %s; trying again", e.Generation, stands(e))
		}
		return fmt.Sprintf("generation %d: %s; trying again", e.Generation, errorText(e.Err))
	case agent.Healed:
		return fmt.Sprintf("put back what %s had lost, generation %d: %s", printable(strings.Join(e.Healed, ", ")), e.Generation, stands(e))
	case agent.CaughtUp:
		return fmt.Sprintf("brought up what was late, generation %d: %s", e.Generation, stands(e))
	case agent.SourceWorks:
		return "what is to be saved can be read and kept again"
	case agent.DrillDue:
		line := "no restore was tried yet with a way in that the wallet has now"
		if !e.Since.IsZero() {
			line = "a restore was last tried " + ago(e.Time.Sub(e.Since))
		}
		return line + ": `satchel drill` tries one, and changes nothing"
	case agent.Drilled:
		return "a drill passed"
	case agent.Branch:
		return errorText(e.Err) + "; " + hintFor(e.Err)
	case agent.Checked:
		line := fmt.Sprintf("checked %s (%s) in %s: ", count(e.Report.Objects, "object"), size(e.Report.Bytes), count(len(e.Places), "place"))
		if len(e.Report.Findings) == 0 {
			if e.Err != nil {
				return line + errorText(e.Err)
			}
			return line + "all is well"
		}
		line += count(len(e.Report.Findings), "finding")
		for i, f := range e.Report.Findings {
			if i == maxNamed {
				return line + "; and more"
			}
			line += fmt.Sprintf("; %s: ", strings.TrimSpace(printable(f.Place+" "+f.Object))) + errorText(f.Err)
		}
		return line
	case agent.Pruned:
		line := fmt.Sprintf("pruned %s (%s) of older states", count(e.Pruned.Objects, "object"), size(e.Pruned.Bytes))
		if e.Err != nil {
			line += ": " + errorText(e.Err)
		}
		return line
	case agent.Alarm:
		line := "ALARM: not protected since " + moment(e.Since)
		if e.Err != nil {
			line += ": " + errorText(e.Err)
			if hint := hintFor(e.Err); hint != "" {
				line += "; " + hint
			}
		}
		return line
	}
	return fmt.Sprintf("%s: %s", e.Kind, errorText(e.Err))
}

// maxNamed is how many things are named in one line.
const maxNamed = 3

func itemNames(prefix string, names []string) string {
	switch {
	case len(names) == 0:
		return ""
	case len(names) > maxNamed:
		return prefix + count(len(names), "item")
	}
	return prefix + printable(strings.Join(names, ", "))
}

// stands says how the backup stands at an event.
func stands(e agent.Event) string {
	whole := 0
	for _, p := range e.Places {
		if p.Health == satchel.HealthProtected {
			whole++
		}
	}
	state := "protected in " + count(whole, "place")
	switch {
	case !e.Protected && whole == 0:
		state = "on this device only, not protected yet"
	case !e.Protected:
		state = "not protected yet, in " + count(whole, "place") + " only"
	}
	if trouble := troubleOf(e); trouble != "" {
		state += "; " + trouble
	}
	return state
}

// troubleOf says which places do not hold all, and why.
func troubleOf(e agent.Event) string {
	var list []string
	for _, p := range e.Places {
		if p.Health == satchel.HealthProtected {
			continue
		}
		text := fmt.Sprintf("%s: %s", printable(p.Address), healthName(p))
		if p.Err != nil {
			text += " (" + errorText(p.Err) + ")"
		}
		list = append(list, text)
	}
	return strings.Join(list, "; ")
}
