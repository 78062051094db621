package auth

import (
	"testing"
	"time"
)

func TestCovers(t *testing.T) {
	for _, test := range []struct {
		scope, path string
		want        bool
	}{
		{"", "", true},
		{"", "hub/partitions/0", true},
		{"hub", "hub", true},
		{"hub", "Hub/ConsumerGroups/$Default/Partitions/0", true},
		{"hub", "sb://ns.example.net:5671/HUB/Partitions/3/", true},
		{"hub", "hub2", false},
		{"hub", "hu", false},
		{"hub", "", false},
		{"hub/partitions/1", "hub/partitions/10", false},
		{"hub/partitions/1", "hub", false},
	} {
		c := &Claims{Namespace: "ns", Grants: []Grant{{test.scope, Send}}}
		if got := c.Allows(Send, test.path, time.Time{}); got != test.want {
			t.Errorf("a grant on %q allows %q: %v", test.scope, test.path, got)
		}
	}
}

func TestEntityPath(t *testing.T) {
	for in, want := range map[string]string{
		"":                                    "",
		"/":                                   "",
		"sb://ns":                             "",
		"sb://ns/":                            "",
		"amqps://ns:5671/Hub":                 "hub",
		"amqp://[::1]:5672/hub/Partitions/0/": "hub/partitions/0",
		"https://ns/hub/messages?timeout=60":  "hub/messages",
		"Hub/$Management":                     "hub/$management",
	} {
		if got := EntityPath(in); got != want {
			t.Errorf("EntityPath(%q) = %q, want %q", in, got, want)
		}
	}
	for in, want := range map[string]string{
		"ns.example.net/hub": "hub",
		"localhost/hub":      "hub",
		"localhost":          "",
		"ns:5672":            "",
		"hub":                "hub", // narrow, rather than the whole namespace
		"sb://anything/hub":  "hub",
	} {
		if got := resourcePath(in); got != want {
			t.Errorf("resourcePath(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestCheck(t *testing.T) {
	c := &Claims{Namespace: "ns.example.net", Grants: []Grant{{"a", Listen}, {"a", Send}, {"b", Listen}}, Expires: noon}
	before := noon.Add(-time.Second)
	if err := c.Check(Listen|Send, "a/Partitions/0", before); err != nil {
		t.Errorf("grants don't add up: %v", err)
	}
	wantKind(t, c.Check(Send, "B/Partitions/1", before), Unauthorized,
		"Unauthorized access. 'Send' claim(s) are required to perform this operation. Resource: 'sb://ns.example.net/B/Partitions/1'.")
	wantKind(t, c.Check(Manage, "amqps://ns/a", before), Unauthorized,
		"Unauthorized access. 'Manage' claim(s) are required to perform this operation. Resource: 'amqps://ns/a'.")
	wantKind(t, c.Check(Listen, "a", noon), Expired, "ExpiredToken: ")

	var none *Claims
	if none.Allows(Listen, "a", noon) || none.Expired(noon) || none.Rights("") != 0 {
		t.Error("no claims allow something")
	}
	wantKind(t, none.Check(Listen, "a", noon), Unauthorized, "Unauthorized access. 'Listen' claim(s)")
}
