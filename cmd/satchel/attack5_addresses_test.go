package main

import "testing"

// What is there once counts once, however its address is written (R1).
func TestAttack5OnePlaceTwoAddresses(t *testing.T) {
	a := testApp(t)
	address := func(s string) string {
		p, err := a.openPlace(s, false)
		if err != nil {
			t.Fatalf("%s: %v", s, err)
		}
		return p.Address
	}
	for _, same := range [][]string{
		{"webdav+https://ann@cloud.example.org/a", "webdav+https://ann@CLOUD.example.org/a/", "webdav+https://ann@cloud.example.org:443/a", "webdav+https://ann@cloud.example.org/%61?", "webdav+https://ann@cloud.example.org./a", "webdav+https://%61nn@cloud.example.org/a"},
		{"webdav+https://ann@bücher.example/a", "webdav+https://ann@xn--bcher-kva.example/a"},
		{"webdav+https://ann@cloud.example.org/remote.php/dav/files/ann/x", "webdav+https://ann@cloud.example.org/remote.php/webdav/x"},
		{"webdav+http://ann@nas/a", "webdav+http://ann@nas:80/a"},
		{"s3://KEY@s3.example.org/b/p", "s3://KEY@s3.example.org/b/p?region=eu", "s3://OTHER@S3.example.org:443/b/p/", "s3://KEY@s3.example.org/b/p?region="},
		{"s3://KEY@s3.eu-central-1.amazonaws.com/b", "s3://KEY@s3.amazonaws.com/b", "s3://KEY@s3.dualstack.eu-central-1.amazonaws.com/b"},
		{"dropbox:ann@example.org/Backups", "dropbox:ann@example.org/backups/"},
		{"onedrive:ann@example.org/Backups", "onedrive:ann@example.org/BACKUPS"},
		{"gdrive:ann@example.org/Backups", "gdrive:ann@example.org/Backups/"},
		{"rclone:cloud:Backups", "rclone:cloud:Backups/", "rclone:cloud:./Backups", "rclone:cloud:/Backups", "rclone:cloud:x/../Backups"},
		{"keychain:", "keychain:store", "keychain", "keychain:other"},
	} {
		for _, other := range same[1:] {
			if x, y := address(same[0]), address(other); !samePlace(x, y) || !samePlace(y, x) {
				t.Errorf("%s and %s are one place, and count as two: %s, %s", same[0], other, x, y)
			}
		}
	}
	for _, two := range [][2]string{
		{"webdav+https://ann@cloud.example.org/a", "webdav+https://ann@cloud.example.org/b"},
		{"webdav+https://ann@cloud.example.org/a", "webdav+https://ann@cloud.example.org:8443/a"},
		{"webdav+https://ann@cloud.example.org/a", "webdav+https://bob@cloud.example.org/a"},
		{"webdav+https://ann@cloud.example.org/a", "webdav+https://ann@cloud.example.org/A"},
		{"s3://KEY@s3.example.org/b/p", "s3://KEY@s3.example.org/b/q"},
		{"s3://KEY@s3.example.org/b", "s3://KEY@s3.example.com/b"},
		{"gdrive:ann@example.org/Backups", "gdrive:ann@example.org/backups"},
		{"gdrive:ann@example.org", "gdrive:bob@example.org"},
		{"dropbox:ann@example.org", "onedrive:ann@example.org"},
		{"rclone:cloud:a", "rclone:other:a"},
	} {
		if samePlace(address(two[0]), address(two[1])) {
			t.Errorf("%s and %s are two places", two[0], two[1])
		}
	}
}

// A new key to the bucket that is the only place can be told: it takes the old one's place.
func TestAttack5OtherKey(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want bool
	}{
		{"s3://OLD@s3.example.org/b", "s3://NEW@s3.example.org/b", true},
		{"s3://OLD@s3.example.org/b", "s3://OLD@s3.example.org/b", false},
		{"s3://OLD@s3.example.org/b", "s3://NEW@s3.example.org/c", false},
		{"keychain:", "keychain:other", false},
	} {
		if got := otherKey(test.a, test.b); got != test.want {
			t.Errorf("%s and %s: got %v", test.a, test.b, got)
		}
	}
}
