package onedrive_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/satchel-backup/satchel/store"
)

// A page that is gone is no end of a list: what the pages after it hold is there.
func TestAttack5NextPageGone(t *testing.T) {
	gone := false
	cloud, s := openOver(t, between{say: func(req *http.Request) (int, string) {
		if gone && strings.Contains(req.URL.RawQuery, "skiptoken") {
			return http.StatusNotFound, `{"error":{"code":"itemNotFound"}}`
		}
		return 0, ""
	}})
	cloud.PageSize = 1
	for _, name := range []string{"a", "b", "c"} {
		put(t, s, name, nil)
	}
	if list, err := s.List(t.Context(), ""); err != nil || len(list) != 3 {
		t.Fatalf("got %v, %v", list, err)
	}
	gone = true
	if list, err := s.List(t.Context(), ""); !errors.Is(err, store.ErrListing) || list != nil {
		t.Errorf("got %v, %v, want ErrListing", list, err)
	}
}
