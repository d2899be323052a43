package recordtest_test

import (
	"testing"

	"github.com/satchel-backup/satchel/keyserver"
	"github.com/satchel-backup/satchel/keyserver/recordtest"
)

func TestMemory(t *testing.T) {
	made := map[string]*recordtest.Memory{}
	recordtest.Test(t, func(t *testing.T, name string) keyserver.Records {
		if made[name] == nil {
			made[name] = &recordtest.Memory{}
		}
		return made[name]
	})
}
