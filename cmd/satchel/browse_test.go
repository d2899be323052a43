package main

import (
	"fmt"
	"net/http"
	"os"
)

// browse is the program that BROWSER names in these tests: somebody who opens the address
// and does what it asks for.
func browse() {
	resp, err := http.Get(os.Args[len(os.Args)-1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	resp.Body.Close()
}
