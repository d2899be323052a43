package program

import (
	"os/exec"
	"syscall"

	"golang.org/x/sys/windows"
)

// apart keeps the program from showing a window, and from asking in ours. When it
// is ended, what it started lives on.
func apart(cmd *exec.Cmd, session bool) {
	cmd.SysProcAttr = &syscall.SysProcAttr{HideWindow: true}
	if session {
		cmd.SysProcAttr.CreationFlags = windows.CREATE_NO_WINDOW
	}
}
