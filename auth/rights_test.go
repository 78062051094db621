package auth

import "testing"

func TestRights(t *testing.T) {
	for _, test := range []struct {
		in, out string
		want    Rights
	}{
		{"", "", 0},
		{"Listen", "Listen", Listen},
		{"send", "Send", Send},
		{"Send, LISTEN", "Listen,Send", Listen | Send},
		{"Listen Send", "Listen,Send", Listen | Send},
		{"Manage", "Listen,Send,Manage", Manage},
		{"Manage,Send,Listen", "Listen,Send,Manage", Manage},
	} {
		got, err := ParseRights(test.in)
		if err != nil || got != test.want || got.String() != test.out {
			t.Errorf("ParseRights(%q) = %v %q, %v; want %v %q", test.in, got, got.String(), err, test.want, test.out)
		}
		var back Rights
		text, _ := got.MarshalText()
		if err := back.UnmarshalText(text); err != nil || back != got {
			t.Errorf("UnmarshalText(%q) = %v, %v", text, back, err)
		}
	}
	if _, err := ParseRights("Listen,Own"); err == nil || err.Error() == "" {
		t.Error("ParseRights took a right that does not exist")
	}
	if (Listen | Send).Has(Manage) || !Manage.Has(Listen|Send) || !Listen.Has(0) {
		t.Error("Has does not follow that Manage implies the others")
	}
}

func TestKindsHaveNames(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range Kinds() {
		if name := k.String(); name == "" || name[0] == 'K' || seen[name] {
			t.Errorf("kind %d is called %q", int(k), name)
		} else {
			seen[name] = true
		}
	}
	if Kind(99).String() != "Kind(99)" {
		t.Error("an unknown kind has a name")
	}
}
