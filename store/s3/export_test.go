package s3

// What tests compare with Amazon's own examples.
var (
	Sign   = sign
	Escape = escape
	Query  = query
)
