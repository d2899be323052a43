package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/api/drive/v3"
	"google.golang.org/api/googleapi"
	"google.golang.org/api/option"
)

// fakeDrive is the fake cloud as a process of its own.
type fakeDrive struct {
	URL    string   `json:"url"`
	Env    []string `json:"env"`
	Owner  string   `json:"owner"`
	Token  string   `json:"token"`
	File   string   `json:"file"`
	Rclone string   `json:"rclone"`

	in  io.Writer
	out *bufio.Reader
}

func startDrive(t *testing.T) *fakeDrive {
	t.Helper()
	program := filepath.Join(t.TempDir(), "fakecloud")
	build := exec.Command("go", "-C", "..", "build", "-o", program, "./e2e/testdata/fakecloud/main.go")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), "TMPDIR="+t.TempDir())
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the fake cloud: %v", err)
		}
	})
	d := &fakeDrive{in: in, out: bufio.NewReader(out)}
	d.read(t, d)
	return d
}

func (d *fakeDrive) read(t *testing.T, v any) {
	t.Helper()
	line, err := d.out.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, v)
	}
	if err != nil {
		t.Fatalf("the fake cloud says nothing: %v", err)
	}
}

// ask makes Satchel's own store do something, and returns names and SHA-256.
func (d *fakeDrive) ask(t *testing.T, format string, args ...any) map[string]string {
	t.Helper()
	if _, err := fmt.Fprintf(d.in, format+"\n", args...); err != nil {
		t.Fatal(err)
	}
	sums := map[string]string{}
	d.read(t, &sums)
	return sums
}

// bearer sends a token along.
type bearer string

func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+string(b))
	return http.DefaultTransport.RoundTrip(r)
}

func (d *fakeDrive) service(t *testing.T, token string) *drive.Service {
	t.Helper()
	s, err := drive.NewService(t.Context(), option.WithHTTPClient(&http.Client{Transport: bearer(token)}), option.WithEndpoint(d.URL+"/drive/v3/"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func code(err error) (int, string) {
	e, ok := errors.AsType[*googleapi.Error](err)
	if !ok {
		return 0, fmt.Sprint(err)
	}
	reason := ""
	if len(e.Errors) > 0 {
		reason = e.Errors[0].Reason
	}
	return e.Code, reason
}

const folderType = "application/vnd.google-apps.folder"

// Google's own library understands the fake, and the fake understands it.
func TestDriveGoogleSDK(t *testing.T) {
	d := startDrive(t)
	s := d.service(t, d.Token)

	about, err := s.About.Get().Fields("user", "storageQuota").Do()
	if err != nil || about.User.PermissionId != d.Owner || about.User.EmailAddress != "ann@example.org" || about.StorageQuota == nil {
		t.Fatalf("about: %+v, %v", about, err)
	}
	if _, err := s.About.Get().Do(); err == nil {
		t.Error("about without fields: no error")
	}
	ids, err := s.Files.GenerateIds().Count(5).Space("drive").Do()
	if err != nil || len(ids.Ids) != 5 {
		t.Fatalf("ids: %+v, %v", ids, err)
	}
	folder, err := s.Files.Create(&drive.File{Name: "Backup", MimeType: folderType, Id: ids.Ids[0]}).Do()
	if err != nil || folder.Id != ids.Ids[0] || folder.Name != "Backup" || folder.MimeType != folderType {
		t.Fatalf("folder: %+v, %v", folder, err)
	}
	data := []byte("sealed\r\n--boundary\r\n")
	large := make([]byte, 20<<20+17)
	rand.NewChaCha8([32]byte{}).Read(large)
	file := &drive.File{Name: "it's \\ one", Parents: []string{folder.Id}, Id: ids.Ids[1], AppProperties: map[string]string{"k": "v"}}
	made, err := s.Files.Create(file).Media(bytes.NewReader(data)).Fields("id", "size", "md5Checksum", "sha256Checksum", "parents").Do()
	if err != nil || made.Size != int64(len(data)) || made.Sha256Checksum != hexSum(data) || !slices.Equal(made.Parents, []string{folder.Id}) || made.Name != "" {
		t.Fatalf("file: %+v, %v", made, err)
	}
	// Again with the same id.
	if status, reason := code(second(s.Files.Create(file).Media(bytes.NewReader(data)).Do())); status != http.StatusConflict || reason != "fileIdInUse" {
		t.Errorf("create again: got %d %s", status, reason)
	}
	// In chunks: three of 8 MiB, and of 256 KiB.
	for i, size := range []int{googleapi.DefaultUploadChunkSize / 2, googleapi.MinUploadChunkSize} {
		part := large
		if i == 1 {
			part = large[:3*googleapi.MinUploadChunkSize]
		}
		made, err := s.Files.Create(&drive.File{Name: "large", Parents: []string{folder.Id}, Id: ids.Ids[2+i]}).
			Media(bytes.NewReader(part), googleapi.ChunkSize(size)).Fields("id", "size", "sha256Checksum").Do()
		if err != nil || made.Size != int64(len(part)) || made.Sha256Checksum != hexSum(part) || made.Id != ids.Ids[2+i] {
			t.Fatalf("chunks of %d: %+v, %v", size, made, err)
		}
		got, err := download(s, made.Id)
		if err != nil || !bytes.Equal(got, part) {
			t.Errorf("download: %d bytes, %v, want %d", len(got), err, len(part))
		}
	}
	// A part of the bytes.
	get := s.Files.Get(ids.Ids[1])
	get.Header().Set("Range", "bytes=2-4")
	resp, err := get.Download()
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || string(got) != string(data[2:5]) || resp.StatusCode != http.StatusPartialContent {
		t.Errorf("range: got %q, %v, %s", got, err, resp.Status)
	}

	// Names are labels; pages are three long.
	for i := range 8 {
		if _, err := s.Files.Create(&drive.File{Name: fmt.Sprintf("twin %d", i/4), Parents: []string{folder.Id}}).Media(strings.NewReader("x")).Do(); err != nil {
			t.Fatal(err)
		}
	}
	for q, want := range map[string]int{
		"":                      1 + 3 + 8,
		"name = 'twin 1'":       4,
		"name = 'TWIN 1'":       4,
		`name = 'it\'s \\ one'`: 1,
		"name contains 'twi'":   8,
		"name != 'twin 1'":      1 + 3 + 4,
		"'root' in parents":     1,
		"'" + folder.Id + "' in parents and trashed = false":                       11,
		"mimeType = '" + folderType + "'":                                          1,
		"mimeType != '" + folderType + "' and (name = 'twin 0' or name = 'large')": 6,
		"not name = 'twin 0'":                                                      8,
		"appProperties has { key='k' and value='v' }":                              1,
		"appProperties has { key='k' and value='w' }":                              0,
		"trashed = true":                         0,
		"'me' in owners and 'nobody' in parents": 0,
		"(name = 'twin 0' or (name = 'twin 1' and trashed=false)) and mimeType contains 'text/'": 8,
	} {
		n, pages := 0, 0
		err := s.Files.List().Q(q).Fields("nextPageToken", "files(id,name)").Pages(t.Context(), func(l *drive.FileList) error {
			n += len(l.Files)
			pages++
			return nil
		})
		if err != nil || n != want || pages != max(1, (want+2)/3) {
			t.Errorf("%s: got %d in %d pages, %v, want %d", q, n, pages, err, want)
		}
	}
	for _, q := range []string{"name = ", "name like 'x'", "name = 'x", "(name = 'x'", "nonsense"} {
		if status, _ := code(second(s.Files.List().Q(q).Do())); status != http.StatusBadRequest {
			t.Errorf("%s: got %d", q, status)
		}
	}
	if status, _ := code(second(s.Files.List().PageToken("stale").Do())); status != http.StatusBadRequest {
		t.Errorf("a stale page: got %d", status)
	}
	if status, _ := code(second(s.Files.List().Fields("files(nonsense)").Do())); status != http.StatusBadRequest {
		t.Errorf("a field that does not exist: got %d", status)
	}

	// The trash takes what is in a folder with it.
	if _, err := s.Files.Update(folder.Id, &drive.File{Trashed: true}).Do(); err != nil {
		t.Fatal(err)
	}
	in, err := s.Files.Get(ids.Ids[1]).Fields("trashed", "explicitlyTrashed").Do()
	if err != nil || !in.Trashed || in.ExplicitlyTrashed {
		t.Errorf("in the trash: %+v, %v", in, err)
	}
	if _, err := s.Files.Update(folder.Id, &drive.File{Trashed: false, ForceSendFields: []string{"Trashed"}, Name: "Back"}).Do(); err != nil {
		t.Fatal(err)
	}
	// Other bytes for a file.
	if f, err := s.Files.Update(ids.Ids[1], &drive.File{}).Media(strings.NewReader("other")).Fields("id", "size", "trashed", "name").Do(); err != nil || f.Size != 5 || f.Trashed || f.Name != file.Name {
		t.Errorf("other bytes: %+v, %v", f, err)
	}
	// A folder of the program's own data.
	if _, err := s.Files.Create(&drive.File{Name: "hidden", Parents: []string{"appDataFolder"}}).Media(strings.NewReader("x")).Do(); err != nil {
		t.Fatal(err)
	}
	if l, err := s.Files.List().Spaces("appDataFolder").Fields("files(id,name,spaces)").Do(); err != nil || len(l.Files) != 1 || l.Files[0].Name != "hidden" {
		t.Errorf("hidden: %+v, %v", l, err)
	}

	// What a sign-in did not ask for.
	few := d.service(t, d.File)
	if status, _ := code(second(few.Files.List().Spaces("appDataFolder").Do())); status != http.StatusForbidden {
		t.Errorf("hidden folder: got %d", status)
	}
	if status, _ := code(second(few.Files.Get("root").Do())); status != http.StatusNotFound {
		t.Errorf("root: got %d", status)
	}
	if status, reason := code(second(d.service(t, "stale").Files.List().Do())); status != http.StatusUnauthorized || reason != "authError" {
		t.Errorf("stale token: got %d %s", status, reason)
	}

	if err := s.Files.Delete(folder.Id).Do(); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{folder.Id, ids.Ids[1]} {
		if status, reason := code(second(s.Files.Get(id).Do())); status != http.StatusNotFound || reason != "notFound" {
			t.Errorf("deleted: got %d %s", status, reason)
		}
	}
	if status, _ := code(s.Files.Delete(folder.Id).Do()); status != http.StatusNotFound {
		t.Errorf("deleted twice: got %d", status)
	}
}

func second[T any](_ T, err error) error { return err }

func hexSum(data []byte) string {
	h := sha256.Sum256(data)
	return hex.EncodeToString(h[:])
}

func download(s *drive.Service, id string) ([]byte, error) {
	resp, err := s.Files.Get(id).Download()
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(resp.Body)
}

// Google's own library and rclone find what Satchel's store puts, and it finds what they put.
func TestDriveStoreAndOthers(t *testing.T) {
	need(t, "rclone", "Debian's rclone")
	d := startDrive(t)
	dir := t.TempDir()
	want := map[string]string{}
	for name, size := range map[string]int{
		"Wallet-Samantha-1a2b/README.txt": 400, "Wallet-Samantha-1a2b/items/keys/1-ab.age": 2000, "Wallet-Samantha-1a2b/items/x/2-cd.age": 6 << 20,
		"Wallet-Samantha-1a2b/snapshots/1.age": 0, "Bob's & Ann's — ünd/slots/a b.age": 9 << 20,
	} {
		data := make([]byte, size)
		rand.NewChaCha8([32]byte{byte(size)}).Read(data)
		file := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		want[name] = hexSum(data)
	}
	if got := d.ask(t, "put %s", dir); !maps.Equal(got, want) {
		t.Fatalf("put %v, want %v", got, want)
	}

	rclone := func(args ...string) string {
		t.Helper()
		config := filepath.Join(t.TempDir(), "rclone.conf")
		if err := os.WriteFile(config, []byte(d.Rclone), 0o600); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		cmd := exec.CommandContext(ctx, "rclone", append([]string{"--config", config, "--retries", "1"}, args...)...)
		cmd.Env = append(append(os.Environ(), d.Env...), "HOME="+t.TempDir())
		var text bytes.Buffer
		cmd.Stderr = &text
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("rclone %q: %v\n%s", args, err, text.Bytes())
		}
		return string(out)
	}
	rclone("check", dir, "file:", "--download")
	rclone("check", dir, "file:") // by MD5
	if got := strings.Fields(rclone("lsf", "-R", "--files-only", "file:Wallet-Samantha-1a2b/items")); len(got) != 2 {
		t.Errorf("rclone lists %q", got)
	}

	// Google's library: the same tree.
	s := d.service(t, d.File)
	files := map[string]*drive.File{}
	if err := s.Files.List().Q("trashed = false").Fields("nextPageToken", "files(id,name,parents,mimeType)").Pages(t.Context(), func(l *drive.FileList) error {
		for _, f := range l.Files {
			files[f.Id] = f
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, f := range files {
		if f.MimeType == folderType {
			continue
		}
		name := f.Name
		for up := files[f.Parents[0]]; up != nil; up = files[up.Parents[0]] {
			name = up.Name + "/" + name
		}
		data, err := download(s, f.Id)
		if err != nil {
			t.Fatal(err)
		}
		got[name] = hexSum(data)
	}
	if !maps.Equal(got, want) {
		t.Errorf("Google's library finds %v, want %v", got, want)
	}

	// And back: what rclone puts, beside what is there, and in place of it.
	rclone("purge", "file:Wallet-Samantha-1a2b")
	if got := d.ask(t, "list"); len(got) != 1 {
		t.Errorf("in the trash, and yet %v", got)
	}
	rclone("copy", dir, "file:")
	if got := d.ask(t, "list"); !maps.Equal(got, want) {
		t.Errorf("after rclone's copy: %v, want %v", got, want)
	}
	// A name that Satchel would not write is not an object, and harms nothing.
	rclone("touch", "file:Wallet-Samantha-1a2b/.hidden")
	if got := d.ask(t, "list"); !maps.Equal(got, want) {
		t.Errorf("with a stranger's file: %v, want %v", got, want)
	}
}
