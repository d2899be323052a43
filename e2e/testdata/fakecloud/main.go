// Command fakecloud runs the fake cloud, and Satchel's store in its Google Drive. The
// tests build it within Satchel's module.
//
//	fakecloud
//
// It prints one line of JSON. Then for each line "put DIR" of its input it puts the
// files below a directory, for each "list" it gets all objects; and it answers with a
// line of JSON: the objects' names and SHA-256. It ends when its input does.
package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/satchel-backup/satchel/internal/fakecloud"
	"github.com/satchel-backup/satchel/store"
	"github.com/satchel-backup/satchel/store/gdrive"
)

// started is what a caller must know.
type started struct {
	URL    string   `json:"url"`    // the cloud
	Env    []string `json:"env"`    // by which programs find a proxy, behind which every host is the cloud
	Owner  string   `json:"owner"`  // the id of the account
	Token  string   `json:"token"`  // for everything
	File   string   `json:"file"`   // with the scope drive.file
	Rclone string   `json:"rclone"` // configuration of the remotes drive: and file:
}

// token is one that is never refused.
type token string

func (t token) Token(_ context.Context, stale string) (string, error) {
	if stale != "" {
		return "", store.ErrSignIn
	}
	return string(t), nil
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "fakecloud:", err)
		os.Exit(1)
	}
}

func run() error {
	dir, err := os.MkdirTemp("", "fakecloud-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	cloud := fakecloud.New()
	cloud.PageSize = 3
	ann := cloud.AddAccount("1001", "ann@example.org")
	proxy, err := fakecloud.NewProxy(cloud, dir)
	if err != nil {
		return err
	}
	defer proxy.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	go (&http.Server{Handler: cloud, ReadHeaderTimeout: time.Minute}).Serve(l)
	s := started{
		URL: "http://" + l.Addr().String(), Env: proxy.Env(), Owner: ann.ID,
		Token: cloud.Token(ann), File: cloud.DriveToken(ann, gdrive.Scopes(false)...),
	}
	s.Rclone = fakecloud.RcloneDrive("drive", s.Token, "drive") + fakecloud.RcloneDrive("file", s.File, "drive.file")
	out := json.NewEncoder(os.Stdout)
	if err := out.Encode(s); err != nil {
		return err
	}
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		// Each time as another process.
		drive, err := gdrive.New(gdrive.Config{Tokens: token(s.File), Owner: ann.ID, Endpoint: s.URL})
		if err != nil {
			return err
		}
		sums := map[string]string{}
		if from, ok := strings.CutPrefix(in.Text(), "put "); ok {
			err = put(drive, from, sums)
		} else {
			err = get(drive, sums)
		}
		if err != nil {
			return err
		}
		if err := out.Encode(sums); err != nil {
			return err
		}
	}
	return in.Err()
}

func put(s store.Store, dir string, sums map[string]string) error {
	return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		sums[name] = sum(data)
		return s.Put(context.Background(), name, data)
	})
}

func get(s store.Store, sums map[string]string) error {
	list, err := s.List(context.Background(), "")
	if err != nil {
		return err
	}
	for _, o := range list {
		data, err := s.Get(context.Background(), o.Name, "", store.MaxObject)
		if err != nil {
			return err
		}
		sums[o.Name] = sum(data)
	}
	return nil
}

func sum(data []byte) string {
	h := sha256.Sum256(data)
	return hex.EncodeToString(h[:])
}
