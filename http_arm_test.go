package millrace_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/auth"
)

// TestManagedConnectionStrings asks the resource manager for keys: what it tells
// is how the broker is reached.
func TestManagedConnectionStrings(t *testing.T) {
	for _, c := range []struct {
		name, advertise string
		listen          map[millrace.Door]string
		door            millrace.Door // that is named
		host, other     string        // of the default namespace, and of another
	}{
		{"on localhost", "", nil, millrace.AMQP, "localhost", "orders.localhost"},
		{"advertised", "broker.example", nil, millrace.AMQP, "broker.example", "orders.broker.example"},
		{"at an address", "", map[millrace.Door]string{millrace.AMQP: "127.0.0.1:0"}, millrace.AMQP, "127.0.0.1", "orders"},
		{"with TLS alone", "", map[millrace.Door]string{millrace.AMQP: "off"}, millrace.AMQPS, "localhost", "orders.localhost"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := start(t, millrace.Options{Data: t.TempDir(), Entra: auth.Entra{AcceptAny: true}, Advertise: c.advertise, Listen: c.listen,
				Namespaces: []millrace.Namespace{{Name: "orders"}}})
			_, port, _ := strings.Cut(b.Address(c.door), ":")
			for ns, host := range map[string]string{"localhost": c.host, "orders": c.other} {
				want := "Endpoint=sb://" + host + ":" + port + ";SharedAccessKeyName=RootManageSharedAccessKey;SharedAccessKey=SAS_KEY_VALUE;UseDevelopmentEmulator=true;"
				if c.door == millrace.AMQPS {
					want = "Endpoint=sb://" + host + ":" + port + "/;SharedAccessKeyName=RootManageSharedAccessKey;SharedAccessKey=SAS_KEY_VALUE"
				}
				req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+b.Address(millrace.HTTP)+
					"/subscriptions/s/resourceGroups/g/providers/Microsoft.EventHub/namespaces/"+ns+"/authorizationRules/RootManageSharedAccessKey/listKeys?api-version=2024-01-01", nil)
				if err != nil {
					t.Fatal(err)
				}
				req.Header.Set("Authorization", "Bearer any")
				resp, err := http.DefaultClient.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				var keys struct{ PrimaryConnectionString string }
				err = json.NewDecoder(resp.Body).Decode(&keys)
				resp.Body.Close()
				if err != nil || keys.PrimaryConnectionString != want {
					t.Errorf("%s: %v, %q, not %q", ns, err, keys.PrimaryConnectionString, want)
				}
			}
		})
	}
}
