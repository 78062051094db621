package hub

import "github.com/millrace/millrace/auth"

// Rule is an authorization rule of a namespace or a hub. Both its keys are good.
type Rule struct {
	Name      string      `json:"name"`
	Rights    auth.Rights `json:"rights"`
	Primary   string      `json:"primary"`
	Secondary string      `json:"secondary,omitempty"`
}
