package lnd

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/satchel-backup/satchel/internal/durable"
	"github.com/satchel-backup/satchel/secret"
)

const (
	maxConf   = 1 << 20 // bytes
	maxValues = 10_000  // in a configuration
)

// networks are those that lnd knows, as it names their directories.
var networks = []string{"mainnet", "testnet", "testnet4", "signet", "simnet", "regtest"}

var (
	// ErrNotFound says that a directory holds no lnd.
	ErrNotFound = errors.New("no lnd found")
	// ErrNotStarted says that a directory is there, and lacks what lnd makes in it when it is
	// started for the first time. It is an ErrNotFound.
	ErrNotStarted error = &fact{"lnd was never started with this directory", ErrNotFound}
	// ErrNoREST says that lnd.conf switches the REST interface off.
	ErrNoREST = errors.New("lnd's REST interface is off: remove norest and no-rest-tls from lnd.conf, and restart lnd")
	// ErrConf says that lnd.conf is not what lnd could read.
	ErrConf = errors.New("lnd.conf cannot be read")
)

// NetworksError says that a directory holds lnd's data of several networks, and which.
type NetworksError struct {
	Networks []string
}

// Error implements error.
func (e *NetworksError) Error() string {
	return "lnd has data of several networks here: name one of " + strings.Join(e.Networks, ", ")
}

// Install is where an lnd on this machine keeps what is needed to reach it.
type Install struct {
	Dir     string // lnd's directory
	Network string // mainnet, testnet, testnet4, signet, simnet or regtest
	Address string // of the REST interface, for the Config
	Cert    string // path of the certificate
	Admin   string // path of the macaroon that allows all; it may not be there
	Backup  string // path of the file that lnd keeps its channel backup in; it may not be there
	// Macaroons are the macaroon files that are there.
	Macaroons []string
}

// Config reads what a connection needs: the certificate, and the macaroon of a path,
// such as Install.Admin.
func (i *Install) Config(macaroon string) (Config, error) {
	cfg := Config{Address: i.Address}
	var err error
	if cfg.Cert, err = ReadCert(i.Cert); err != nil {
		return Config{}, err
	}
	cfg.Macaroon, err = ReadMacaroon(macaroon)
	return cfg, err
}

// ReadCert reads a certificate file.
func ReadCert(path string) ([]byte, error) {
	cert, err := durable.Disk{}.ReadFile(path, maxCert)
	if err != nil {
		return nil, fmt.Errorf("reading lnd's certificate: %w", err)
	}
	return cert, nil
}

// ReadMacaroon reads a macaroon file.
func ReadMacaroon(path string) (secret.Bytes, error) {
	mac, err := durable.Disk{}.ReadFile(path, maxMacaroon)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("reading a macaroon: %w", err)
	}
	defer clear(mac)
	return secret.New(mac), nil
}

// Directories lists where lnd's directory is on this machine, if it is where lnd or one
// of the usual node systems puts it. Most of them do not exist.
func Directories() []string {
	home, err := os.UserHomeDir()
	if err != nil {
		return nil
	}
	switch runtime.GOOS {
	case "windows":
		local := cmp.Or(os.Getenv("LOCALAPPDATA"), filepath.Join(home, "AppData", "Local"))
		return []string{filepath.Join(local, "Lnd")}
	case "darwin":
		return []string{filepath.Join(home, "Library", "Application Support", "Lnd")}
	}
	return []string{
		filepath.Join(home, ".lnd"),
		filepath.Join(home, "umbrel", "app-data", "lightning", "data", "lnd"), // Umbrel
		"/mnt/hdd/lnd",          // RaspiBlitz
		"/mnt/hdd/app-data/lnd", // RaspiBlitz
		"/mnt/hdd/mynode/lnd",   // myNode
	}
}

// Find looks at an lnd's directory, "" for the first of [Directories] that exists. The
// network "" is the one that lnd.conf names or that data is there of; a *NetworksError
// says that there are several. Nothing is asked over the network.
func Find(dir, network string) (*Install, error) {
	if network != "" && !slices.Contains(networks, network) {
		return nil, fmt.Errorf("lnd knows no such network: it is one of %s", strings.Join(networks, ", "))
	}
	if dir == "" {
		for _, d := range Directories() {
			if info, err := os.Stat(d); err == nil && info.IsDir() {
				dir = d
				break
			}
		}
		if dir == "" {
			return nil, fmt.Errorf("%w in the usual places: name its directory, which holds lnd.conf or tls.cert", ErrNotFound)
		}
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("finding lnd: %w", err)
	}
	if _, err := os.Stat(dir); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	data, err := durable.Disk{}.ReadFile(filepath.Join(dir, "lnd.conf"), maxConf)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", ErrConf, err)
	}
	conf, err := parseConf(data)
	if err != nil {
		return nil, err
	}
	if conf.is("norest") || conf.is("no-rest-tls") {
		return nil, ErrNoREST
	}
	i := &Install{Dir: dir, Network: network, Address: conf.address(), Cert: conf.path(dir, "tlscertpath", "tls.cert")}
	chains := filepath.Join(conf.path(dir, "datadir", "data"), "chain", "bitcoin")
	if i.Network == "" {
		if i.Network, err = theNetwork(conf, chains); err != nil {
			return nil, err
		}
	}
	home := filepath.Join(chains, i.Network)
	i.Admin = conf.path(dir, "adminmacaroonpath", filepath.Join(home, "admin.macaroon"))
	i.Backup = conf.path(dir, "backupfilepath", filepath.Join(home, "channel.backup"))
	i.Macaroons, _ = filepath.Glob(filepath.Join(glob(home), "*.macaroon")) // Only a pattern can be wrong.
	if _, err := os.Stat(i.Admin); err == nil && !slices.Contains(i.Macaroons, i.Admin) {
		i.Macaroons = append(i.Macaroons, i.Admin)
	}
	if _, err := os.Stat(i.Cert); err != nil {
		return nil, fmt.Errorf("%w: its certificate is missing: %w", ErrNotStarted, err)
	}
	return i, nil
}

// glob escapes what has a meaning in a pattern, where that is possible.
func glob(path string) string {
	if runtime.GOOS == "windows" {
		return path
	}
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

// theNetwork is the one that the configuration names, or else the one of which there is
// data.
func theNetwork(conf conf, chains string) (string, error) {
	var found []string
	for _, n := range networks {
		if conf.is("bitcoin." + n) {
			found = append(found, n)
		}
	}
	if len(found) == 0 {
		for _, n := range networks {
			if info, err := os.Stat(filepath.Join(chains, n)); err == nil && info.IsDir() {
				found = append(found, n)
			}
		}
	}
	switch len(found) {
	case 0:
		return "", fmt.Errorf("%w: it has no data of any network yet", ErrNotStarted)
	case 1:
		return found[0], nil
	}
	return "", &NetworksError{Networks: found}
}

// conf is what a lnd.conf sets: values by lower-case key, in order.
type conf map[string][]string

// parseConf reads what lnd reads: lines key=value, sections, and comments that begin
// with ; or #. What it does not know is kept and not looked at.
func parseConf(data []byte) (conf, error) {
	c := conf{}
	n := 0
	for line := range strings.Lines(strings.TrimPrefix(string(data), "\ufeff")) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == ';' || line[0] == '#' || line[0] == '[' {
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if n++; !ok || n > maxValues {
			return nil, ErrConf
		}
		key, value = strings.ToLower(strings.TrimSpace(key)), strings.TrimSpace(value)
		if strings.HasPrefix(value, `"`) {
			if unquoted, err := strconv.Unquote(value); err == nil {
				value = unquoted
			}
		}
		c[key] = append(c[key], value)
	}
	return c, nil
}

// last returns the last value of a key: that one counts.
func (c conf) last(key string) string {
	if values := c[key]; len(values) > 0 {
		return values[len(values)-1]
	}
	return ""
}

func (c conf) is(key string) bool {
	values, set := c[key]
	if !set {
		return false
	}
	value := values[len(values)-1]
	yes, err := strconv.ParseBool(value)
	return value == "" || err == nil && yes
}

// path returns the path that a key sets, or another one. lnd takes relative ones from
// where it was started, which is not known here: most often, its own directory.
func (c conf) path(dir, key, other string) string {
	path := c.last(key)
	if path == "" {
		path = other
	}
	if rest, ok := strings.CutPrefix(path, "~"); ok {
		// lnd's user is who owns its directory, and lnd's directory mostly is in their home.
		home, err := os.UserHomeDir()
		if filepath.Base(dir) == ".lnd" {
			home, err = filepath.Dir(dir), nil
		}
		if err == nil {
			path = home + rest
		}
	}
	path = os.ExpandEnv(path)
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	return filepath.Clean(path)
}

// address returns where the REST interface listens, this machine's own address first.
func (c conf) address() string {
	best := ""
	for _, a := range c["restlisten"] {
		if strings.HasPrefix(a, "unix") || strings.HasPrefix(a, "/") {
			continue
		}
		a = strings.TrimPrefix(a, "tcp://")
		if port, err := strconv.ParseUint(a, 10, 16); err == nil { // A port alone.
			a = net.JoinHostPort("localhost", strconv.FormatUint(port, 10))
		}
		host, port, err := splitAddress(a)
		if err != nil {
			continue
		}
		ip := net.ParseIP(host)
		a = net.JoinHostPort(host, port)
		if host == "localhost" || ip != nil && ip.IsLoopback() {
			return a
		}
		if best == "" {
			best = a
		}
	}
	return cmp.Or(best, net.JoinHostPort("localhost", defaultPort))
}
