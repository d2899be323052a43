package main

import (
	"errors"
	"strings"

	"github.com/satchel-backup/satchel/internal/web"
	"github.com/satchel-backup/satchel/store/onepassword"
	"github.com/satchel-backup/satchel/store/rclone"
	"github.com/satchel-backup/satchel/store/s3"
	"github.com/satchel-backup/satchel/store/webdav"
)

// placeFacts are why nothing is known of a place, where something else stands in the way
// than the network, and what to do about each.
var placeFacts = []struct {
	fact error
	hint string
}{
	{rclone.ErrNotInstalled, "install rclone (rclone.org), or let PATH lead to it"},
	{rclone.ErrNoRemote, "`rclone listremotes` shows those that there are, `rclone config` makes one"},
	{rclone.ErrConfig, "`rclone config` shows what is wrong with it"},
	{rclone.ErrMark, "connect the drive, or sign rclone in to the account that holds the backup (`rclone config reconnect`)"},
	{rclone.ErrRefused, "run the rclone command that the error names: it says what rclone needs, a new sign-in perhaps (`rclone config reconnect`)"},
	{onepassword.ErrNotInstalled, "install the 1Password CLI (op), or let PATH lead to it"},
	{onepassword.ErrNoVault, "`op vault list` shows the vaults that this account has"},
	{onepassword.ErrRefused, "`op vault list` says what op needs"},

	{s3.ErrBucket, "look at the service whether the bucket is there and how it is written; Satchel makes none"},
	{s3.ErrClock, "set the clock of this device"},
	{s3.ErrRegion, "the service shows the region of the bucket: put it at the end of the address, ?region=NAME"},
	{s3.ErrNotS3, "look up the service's S3 address; in the network of a hotel or a train, sign in there first"},
	{s3.ErrArchive, "restore the object at the service, and end the rule that archives"},
	{s3.ErrFault, "the service was reached: wait until it has no fault"},

	{webdav.ErrNotDAV, "look up the WebDAV address in the server's settings; that of Nextcloud and ownCloud is …/remote.php/dav/files/USER"},
	{webdav.ErrPage, "look up the WebDAV address in the server's settings; in the network of a hotel or a train, sign in there first"},
	{webdav.ErrElse, "look up the WebDAV address in the server's settings: it may have moved"},
	{webdav.ErrPaths, "whoever runs the server can set the proxy before it to keep paths"},
	{webdav.ErrMissing, "look on the server where the folder is: put it back, or connect its disk"},
	{webdav.ErrFault, "the server was reached: whoever runs it finds the fault in its log"},

	{web.ErrNoTLS, "look at the address and its port; without https only machines in the local network are spoken to"},
	{web.ErrBusy, "the server was reached: wait a while"},
}

// placeFact says what to do about a place that could not be asked, or "" if all that is
// known is that it does not answer. After a while only the text of its error is left.
func placeFact(err error) string {
	if err == nil {
		return ""
	}
	text := err.Error()
	if advice := certificateAdvice(text); advice != "" {
		return advice
	}
	for _, f := range placeFacts {
		if errors.Is(err, f.fact) || strings.Contains(text, f.fact.Error()) {
			return f.hint
		}
	}
	return ""
}
