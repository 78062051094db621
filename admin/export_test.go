package admin

// StatusOf lets tests see how an error is answered.
func StatusOf(err error) (status int, retryAfter string) {
	e, retryAfter, _ := answerFor(err)
	return e.Status, retryAfter
}
