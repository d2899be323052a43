package control

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// Who is at the other end is known: this user is let in, and, where the test runs as root
// and can be somebody else for a moment, another one is not, whatever the mode says.
func TestCheckPeer(t *testing.T) {
	dir, err := os.MkdirTemp("", "c")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := errors.Join(os.Chmod(dir, 0o711), os.Chmod(path, 0o666)); err != nil {
		t.Fatal(err)
	}
	users := []int{os.Geteuid()}
	if os.Geteuid() == 0 {
		users = append(users, 65534)
	}
	for _, user := range users {
		done := make(chan struct{})
		go func() {
			defer close(done)
			runtime.LockOSThread() // It ends with the goroutine: nothing else runs as that user.
			if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(user), ^uintptr(0)); e != 0 {
				t.Error(e)
				return
			}
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
			if err != nil {
				t.Error(err)
				return
			}
			defer unix.Close(fd)
			if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
				t.Error(err)
			}
		}()
		<-done
		if t.Failed() {
			return
		}
		c, err := l.AcceptUnix()
		if err != nil {
			t.Fatal(err)
		}
		var want error
		if user != os.Geteuid() {
			want = ErrPeer
		}
		if err := checkPeer(c); !errors.Is(err, want) {
			t.Errorf("user %d: got %v, want %v", user, err, want)
		}
		c.Close()
	}
}
