package satcheltest

// Parts are the names of the parts of the journey, in order.
func Parts() []string {
	var names []string
	for _, p := range parts {
		names = append(names, p.name)
	}
	return names
}

// Walk walks one part.
func Walk(t TB, app App, name string) {
	for _, p := range parts {
		if p.name == name {
			p.walk(t, app)
		}
	}
}
