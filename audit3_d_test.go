package satchel_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/satchel-backup/satchel/store/mem"
	"github.com/satchel-backup/satchel/store/storetest"
)

// 10. A place that lost everything is being filled again, which takes longer than the time
// between two checks. Each Check forgets what was put and read back there already.
func TestAudit3CheckForgetsProgress(t *testing.T) {
	ctx := context.Background()
	inner := &mem.Store{}
	st := &storetest.Faulty{Inner: inner}
	b, _, _ := create(t, config(t, st), item("labels", "1"))
	for i := range 10 {
		save(t, b, item(fmt.Sprint("file/", i), strings.Repeat("x", 5000+i)))
	}
	for name := range objects(t, inner, "") {
		replace(t, inner, name, nil)
	}
	var puts atomic.Int64
	limit := int64(8)
	st.Choose(func(op storetest.Op, name string) storetest.Fault {
		if op == storetest.Put && strings.HasSuffix(name, ".age") && puts.Add(1) > limit {
			return storetest.Unreachable
		}
		return storetest.None
	})
	for day := range 10 {
		puts.Store(0)
		if _, err := b.Sync(ctx); err == nil {
			t.Logf("whole after %d days", day)
			return
		}
		b.Check(ctx)
	}
	t.Errorf("after 10 days with 8 objects each, %d of %d objects are there", len(objects(t, inner, "")), len(b.Objects()))
}
