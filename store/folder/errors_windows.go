package folder

import (
	"errors"

	"golang.org/x/sys/windows"
)

// isSignedOut reports whether the sync program must be signed in again before it
// fetches a file.
func isSignedOut(err error) bool {
	return errors.Is(err, windows.ERROR_CLOUD_FILE_AUTHENTICATION_FAILED)
}

// isFull reports whether the disk, or the user's share of it, has no room.
func isFull(err error) bool {
	return errors.Is(err, windows.ERROR_DISK_FULL) || errors.Is(err, windows.ERROR_HANDLE_DISK_FULL) ||
		errors.Is(err, windows.ERROR_DISK_QUOTA_EXCEEDED)
}

// isGone reports whether the drive or the network behind the folder is gone.
func isGone(err error) bool {
	for _, gone := range []error{
		windows.ERROR_NOT_READY, windows.ERROR_DEVICE_NOT_CONNECTED, windows.ERROR_NO_SUCH_DEVICE,
		windows.ERROR_BAD_NETPATH, windows.ERROR_NETWORK_UNREACHABLE, windows.ERROR_NETNAME_DELETED,
		windows.ERROR_UNEXP_NET_ERR, windows.ERROR_SEM_TIMEOUT, windows.ERROR_WRONG_DISK,
		// A file that the cloud has and that could not be fetched now.
		windows.ERROR_CLOUD_FILE_PROVIDER_NOT_RUNNING, windows.ERROR_CLOUD_FILE_NETWORK_UNAVAILABLE,
		windows.ERROR_CLOUD_FILE_PROVIDER_TERMINATED, windows.ERROR_CLOUD_FILE_REQUEST_TIMEOUT,
		windows.ERROR_CLOUD_FILE_REQUEST_ABORTED, windows.ERROR_CLOUD_FILE_REQUEST_CANCELED,
		windows.ERROR_CLOUD_FILE_UNSUCCESSFUL, windows.ERROR_CLOUD_FILE_INSUFFICIENT_RESOURCES,
	} {
		if errors.Is(err, gone) {
			return true
		}
	}
	return false
}
