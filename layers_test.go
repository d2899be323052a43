package satchel_test

import (
	"go/ast"
	"go/build"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/satchel-backup/satchel"

// level is the picture of the house: a package imports packages of lower levels
// only. A new package gets a line here first.
//
//	7 wiring    the only importers of adapters
//	5 agent     the loop around a backup and its sources
//	4 whole     the front door; no adapter
//	3 adapters  one outside system each, never each other
//	1, 2 pieces
//	0 ground
//
// Every level may use secret, and tests may also use the *test packages.
var level = map[string]int{
	"cmd/satchel":            7,
	"cmd/satchel-demo":       7,
	"cmd/satchel-keyserver":  7,
	"examples/wallet":        7,
	"examples/ownstore":      7,
	"bench":                  7,
	"satcheltest":            7, // for the tests of wallets
	"cmd/age-plugin-satchel": 7,

	"internal/agent": 5,
	"internal/alarm": 5,

	"": 4,

	"keyserver/front":    3,
	"keyserver/postgres": 3,
	"keyserver/sqlite":   3,
	"store/dropbox":      3,
	"store/folder":       3,
	"store/gdrive":       3,
	"store/mem":          3,
	"store/s3":           3,
	"store/onedrive":     3,
	"store/webdav":       3,
	"store/rclone":       3,
	"store/onepassword":  3,
	"store/keychain":     3,
	"source/cln":         3,
	"source/file":        3,
	"source/lnd":         3,
	"guard/https":        3,

	"slot": 2,

	"guard":     1,
	"keyserver": 1,
	"seal":      1,
	"keychain":  1,
	"source":    1,

	"keyserver/group":    0,
	"protocol":           0,
	"wallet":             0,
	"store":              0,
	"internal/durable":   0,
	"internal/metrics":   0,
	"internal/escape":    0,
	"internal/program":   0,
	"internal/control":   0,
	"internal/web":       1,
	"internal/signin":    2,
	"internal/fakecloud": 3, // for tests
	"internal/fakelnd":   3, // for tests

	"secret": -1,

	// Only tests import these.
	"internal/metrics/metricstest": 0,
	"store/storetest":              3,
	"keyserver/postgrestest":       3,
	"keyserver/recordtest":         3,
	"guard/guardtest":              4,
	"internal/cloudtest":           5,
}

// quiet packages touch no network, disk or clock of their own.
var quiet = []string{"secret", "store", "seal", "wallet", "slot", "protocol"}

// loud is what a quiet package does not import.
var loud = []string{"net", "net/http", "os", "os/exec", "syscall", "log"}

func TestLayers(t *testing.T) {
	seen := map[string]bool{}
	for _, file := range goFiles(t) {
		pkg := path.Dir(filepath.ToSlash(file))
		if pkg == "." {
			pkg = ""
		}
		seen[pkg] = true
		mine, ok := level[pkg]
		if !ok {
			t.Errorf("%s: package %q has no line in the picture", file, pkg)
			continue
		}
		test := strings.HasSuffix(file, "_test.go")
		for _, imp := range imports(t, file) {
			if !test && slices.Contains(quiet, pkg) && slices.Contains(loud, imp) {
				t.Errorf("%s imports %s: package %s touches no network, disk or clock", file, imp, pkg)
			}
			if imp != module && !strings.HasPrefix(imp, module+"/") {
				continue
			}
			theirs := strings.TrimPrefix(strings.TrimPrefix(imp, module), "/")
			l, ok := level[theirs]
			switch {
			case !ok:
				t.Errorf("%s imports %q, which has no line in the picture", file, theirs)
			case test:
				// Tests join the real parts.
			case strings.HasSuffix(theirs, "test") && !strings.HasSuffix(pkg, "test"):
				t.Errorf("%s imports %s, which is for tests", file, theirs)
			case l >= mine:
				t.Errorf("%s: level %d imports %q of level %d", file, mine, theirs, l)
			case l == 3 && mine != 7 && !strings.HasSuffix(pkg, "test"):
				t.Errorf("%s imports the adapter %q; only wiring does", file, theirs)
			}
		}
	}
	for pkg := range level {
		if !seen[pkg] {
			t.Errorf("package %q is in the picture and has no files", pkg)
		}
	}
}

// What a wallet links when it imports the SDK: no provider, no command line, no
// keychain, no network.
func TestFrontDoorIsSmall(t *testing.T) {
	for _, imp := range closure(t, "") {
		for _, bad := range []string{module + "/store/", module + "/cmd", module + "/keychain", "github.com/spf13", "github.com/zalando", "net/http"} {
			if strings.HasPrefix(imp, bad) {
				t.Errorf("the SDK links %s", imp)
			}
		}
	}
}

// What is compiled before main is paid for by every command: patterns wait until they are
// used.
func TestCommandCompilesNothing(t *testing.T) {
	linked := closure(t, "cmd/satchel")
	for _, file := range goFiles(t) {
		pkg := path.Dir(filepath.ToSlash(file))
		if strings.HasSuffix(file, "_test.go") || pkg != "cmd/satchel" && !slices.Contains(linked, path.Join(module, pkg)) {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			vars, ok := d.(*ast.GenDecl)
			if !ok {
				continue
			}
			ast.Inspect(vars, func(n ast.Node) bool {
				if _, later := n.(*ast.FuncLit); later {
					return false
				}
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				if f, ok := call.Fun.(*ast.SelectorExpr); ok && f.Sel.Name == "MustCompile" {
					t.Errorf("%s compiles a pattern at each start", file)
				}
				return true
			})
		}
	}
}

// What an operator runs knows no backups, and what people run is no key server.
func TestKeyServerIsApart(t *testing.T) {
	for _, imp := range closure(t, "cmd/satchel-keyserver") {
		rest, ours := strings.CutPrefix(imp, module)
		for _, bad := range []string{"", "/seal", "/slot", "/store", "/wallet", "/source", "/keychain", "/guard"} {
			if ours && (rest == bad || bad != "" && strings.HasPrefix(rest, bad+"/")) {
				t.Errorf("the key server links %s", imp)
			}
		}
	}
	for _, cmd := range []string{"cmd/satchel", ""} {
		if slices.ContainsFunc(closure(t, cmd), func(imp string) bool { return strings.HasPrefix(imp, module+"/keyserver") }) {
			t.Errorf("%q links the key server", cmd)
		}
	}
}

// goFiles lists the module's Go files, without e2e, which is a module of its
// own, and testdata.
func goFiles(t *testing.T) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(".", func(p string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && (p == "e2e" || e.Name() == "testdata" || strings.HasPrefix(e.Name(), ".") && p != "."):
			return fs.SkipDir
		case strings.HasSuffix(p, ".go"):
			files = append(files, p)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func imports(t *testing.T, file string) []string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, s := range f.Imports {
		imp, err := strconv.Unquote(s.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, imp)
	}
	return list
}

// closure returns what a package of the module imports, with what the module's
// packages below it import.
func closure(t *testing.T, pkg string) []string {
	t.Helper()
	seen := map[string]bool{}
	var visit func(pkg string)
	visit = func(pkg string) {
		p, err := build.ImportDir("./"+pkg, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, imp := range p.Imports {
			if seen[imp] {
				continue
			}
			seen[imp] = true
			if rest, ok := strings.CutPrefix(imp, module+"/"); ok {
				visit(rest)
			}
		}
	}
	visit(pkg)
	var list []string
	for imp := range seen {
		list = append(list, imp)
	}
	return list
}
