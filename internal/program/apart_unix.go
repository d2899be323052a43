//go:build unix

package program

import (
	"os/exec"
	"syscall"
)

// apart gives the program a process group of its own, which ends as a whole.
func apart(cmd *exec.Cmd, session bool) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: !session, Setsid: session}
	cmd.Cancel = func() error {
		// Either way the group has the program's number.
		return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
}
