package rest_test

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/millrace/millrace/rest"
)

// TestARMRefusals has what each refusal is called.
func TestARMRefusals(t *testing.T) {
	m := newManager(t)
	m.must("PUT", "namespaces/basic-one", `{"sku":{"name":"Basic"}}`)
	m.must("PUT", "namespaces/basic-one/eventhubs/h", `{"properties":{"messageRetentionInDays":1}}`)
	properties := func(s string) string { return `{"properties":{` + s + `}}` }
	const ns, h = "namespaces/localhost", "namespaces/localhost/eventhubs/trial"
	for _, c := range []struct {
		method, path, body string
		status             int
		code               string
	}{
		{"GET", "namespaces/nowhere", "", 404, "ResourceNotFound"},
		{"PATCH", "namespaces/nowhere", "{}", 404, "ResourceNotFound"},
		{"GET", "namespaces/nowhere/eventhubs", "", 404, "ParentResourceNotFound"},
		{"PUT", "namespaces/nowhere/eventhubs/h", "{}", 404, "ParentResourceNotFound"},
		{"POST", "namespaces/nowhere/authorizationRules/r/listKeys", "", 404, "ParentResourceNotFound"},
		{"GET", ns + "/eventhubs/none", "", 404, "NotFound"},
		{"PUT", ns + "/eventhubs/none/consumergroups/g", "{}", 404, "NotFound"},
		{"GET", h + "/consumergroups/none", "", 404, "NotFound"},
		{"GET", h + "/authorizationRules/none", "", 404, "NotFound"},
		{"POST", h + "/authorizationRules/none/listKeys", "", 404, "NotFound"},
		{"DELETE", h + "/consumergroups/$Default", "", 400, "BadRequest"},
		{"DELETE", h + "/consumergroups/$default", "", 400, "BadRequest"},
		{"PUT", h + "/consumergroups/$Default", properties(`"userMetadata":"x"`), 400, "BadRequest"},
		{"PUT", h + "/consumergroups/-x", "{}", 400, "BadRequest"},
		{"DELETE", ns, "", 400, "BadRequest"},
		{"DELETE", ns + "/authorizationRules/root", "", 400, "BadRequest"},

		{"PUT", "namespaces/short", "{}", 400, "BadRequest"},
		{"PUT", "namespaces/under_score", "{}", 400, "BadRequest"},
		{"PUT", "namespaces/new-one", `{"sku":{"name":"Huge"}}`, 400, "BadRequest"},
		{"PUT", "namespaces/new-one", `{"sku":{}}`, 400, "BadRequest"},
		{"PUT", "namespaces/new-one", `{"sku":{"name":"Standard","tier":"Basic"}}`, 400, "BadRequest"},
		{"PUT", "namespaces/new-one", `{"sku":{"name":"Standard","capacity":41}}`, 400, "BadRequest"},
		{"PUT", "namespaces/new-one", `{"sku":{"name":"Basic"},"properties":{"isAutoInflateEnabled":true,"maximumThroughputUnits":2}}`, 400, "BadRequest"},
		{"PUT", "namespaces/new-one", `{"tags":{"":"x"}}`, 400, "BadRequest"},
		{"PUT", "namespaces/new-one", `{"tags":{"a":"` + strings.Repeat("x", 257) + `"}}`, 400, "BadRequest"},
		{"PUT", "namespaces/new-one", `{"location":"` + strings.Repeat("x", 65) + `"}`, 400, "BadRequest"},
		{"PUT", "namespaces/new-one", `{"identity":{"type":"SystemAssigned"}}`, 400, "IdentityNotSupported"},
		{"PUT", "namespaces/new-one", properties(`"minimumTlsVersion":"1.3"`), 400, "BadRequest"},
		{"PUT", "namespaces/new-one", properties(`"disableLocalAuth":"yes"`), 400, "InvalidRequestContent"},
		{"PUT", "namespaces/new-one", properties(`"publicNetworkAccess":"Disabled"`), 400, "PublicNetworkAccessNotSupported"},
		{"PUT", "namespaces/new-one", properties(`"alternateName":"x"`), 400, "AlternateNameNotSupported"},
		{"PUT", "namespaces/new-one", properties(`"clusterArmId":"x"`), 400, "ClusterNotSupported"},
		{"PUT", "namespaces/new-one", properties(`"encryption":{"keySource":"Microsoft.KeyVault"}`), 400, "EncryptionNotSupported"},
		{"PUT", "namespaces/new-one", properties(`"geoDataReplication":{"locations":[{}]}`), 400, "GeoDataReplicationNotSupported"},
		{"PUT", "namespaces/new-one", properties(`"privateEndpointConnections":[{}]`), 400, "PrivateEndpointNotSupported"},
		{"PUT", "namespaces/new-one", properties(`"platformCapabilities":{"confidentialCompute":{"mode":"Enabled"}}`), 400, "ConfidentialComputeNotSupported"},
		{"GET", "namespaces/new-one", "", 404, "ResourceNotFound"},

		{"PUT", ns + "/eventhubs/new", properties(`"partitionCount":0`), 400, "BadRequest"},
		{"PUT", ns + "/eventhubs/new", properties(`"partitionCount":1025`), 400, "BadRequest"},
		{"PUT", ns + "/eventhubs/new", properties(`"partitionCount":9999999999`), 400, "BadRequest"},
		{"PUT", ns + "/eventhubs/new", properties(`"messageRetentionInDays":0`), 400, "BadRequest"},
		{"PUT", ns + "/eventhubs/new", properties(`"messageRetentionInDays":9223372036854775807`), 400, "BadRequest"},
		{"PUT", ns + "/eventhubs/new", properties(`"messageRetentionInDays":2,"retentionDescription":{"retentionTimeInHours":24}`), 400, "BadRequest"},
		{"PUT", ns + "/eventhubs/new", properties(`"retentionDescription":{"cleanupPolicy":"Shred"}`), 400, "BadRequest"},
		{"PUT", ns + "/eventhubs/new", properties(`"retentionDescription":{"cleanupPolicy":"Compact"}`), 400, "CompactionNotSupported"},
		{"PUT", ns + "/eventhubs/new", properties(`"captureDescription":{"enabled":true,"intervalInSeconds":59}`), 400, "BadRequest"},
		{"PUT", ns + "/eventhubs/new", properties(`"captureDescription":{"enabled":true,"intervalInSeconds":9999999999}`), 400, "BadRequest"},
		{"PUT", ns + "/eventhubs/new", properties(`"captureDescription":{"enabled":true,"sizeLimitInBytes":1}`), 400, "BadRequest"},
		{"PUT", ns + "/eventhubs/new", properties(`"captureDescription":{"enabled":true,"encoding":"CSV"}`), 400, "BadRequest"},
		{"PUT", ns + "/eventhubs/new", properties(`"captureDescription":{"enabled":true,"destination":{"name":"EventHubArchive.AzureDataLake"}}`), 400, "DataLakeNotSupported"},
		{"PUT", ns + "/eventhubs/new", properties(`"captureDescription":{"enabled":true,"destination":{"name":"Tape"}}`), 400, "BadRequest"},
		{"PUT", ns + "/eventhubs/new", properties(`"captureDescription":{"enabled":true,"destination":{"properties":{"storageAccountResourceId":"/x/storageAccounts/nowhere"}}}`), 400, "BadRequest"},
		{"PUT", "namespaces/basic-one/eventhubs/new", properties(`"messageRetentionInDays":1,"captureDescription":{"enabled":true}`), 400, "BadRequest"},
		{"PUT", ns + "/eventhubs/new", properties(`"messageTimestampDescription":{"timestampType":"Create"}`), 400, "MessageTimestampNotSupported"},
		{"PUT", ns + "/eventhubs/new", properties(`"status":"Renaming"`), 400, "BadRequest"},
		{"PUT", ns + "/eventhubs/new", properties(`"userMetadata":"` + strings.Repeat("x", 1025) + `"`), 400, "BadRequest"},
		{"GET", ns + "/eventhubs/new", "", 404, "NotFound"},
		{"PUT", h, properties(`"partitionCount":3`), 400, "BadRequest"},
		{"PUT", "namespaces/basic-one/eventhubs/h", properties(`"partitionCount":5`), 400, "BadRequest"},
		{"PUT", "namespaces/basic-one/eventhubs/h", properties(`"messageRetentionInDays":2`), 400, "BadRequest"},
		{"PUT", "namespaces/basic-one/eventhubs/new", properties(`"partitionCount":33,"messageRetentionInDays":1`), 400, "BadRequest"},
		{"PUT", "namespaces/basic-one/eventhubs/h/consumergroups/g", "{}", 403, "QuotaExceeded"},
		{"PUT", "namespaces/basic-one/networkRuleSets/default", properties(`"defaultAction":"Deny"`), 400, "BadRequest"},

		{"PUT", ns + "/authorizationRules/new", properties(`"rights":[]`), 400, "BadRequest"},
		{"PUT", ns + "/authorizationRules/new", properties(`"rights":["Rule"]`), 400, "BadRequest"},
		{"PUT", ns + "/authorizationRules/new", properties(`"rights":["Manage"]`), 400, "BadRequest"},
		{"POST", ns + "/authorizationRules/root/regenerateKeys", `{"keyType":"Tertiary"}`, 400, "BadRequest"},
		{"PUT", ns + "/networkRuleSets/default", properties(`"virtualNetworkRules":[{"subnet":{"id":"x"}}]`), 400, "VirtualNetworkRulesNotSupported"},
		{"PUT", ns + "/networkRuleSets/default", properties(`"publicNetworkAccess":"Disabled"`), 400, "PublicNetworkAccessNotSupported"},
		{"PUT", ns + "/networkRuleSets/default", properties(`"defaultAction":"Maybe"`), 400, "BadRequest"},
		{"PUT", ns + "/networkRuleSets/default", properties(`"ipRules":[{"ipMask":"everywhere"}],"defaultAction":"Deny"`), 400, "BadRequest"},
		{"GET", ns + "/networkRuleSets/other", "", 404, "NotFound"},
		{"PUT", ns + "/applicationGroups/g", "{}", 400, "BadRequest"},
		{"PUT", ns + "/applicationGroups/g", properties(`"clientAppGroupIdentifier":"me"`), 400, "BadRequest"},
		{"PUT", ns + "/applicationGroups/g", properties(`"clientAppGroupIdentifier":"AADAppID=1","policies":[{"type":"Other"}]`), 400, "BadRequest"},
		{"PUT", ns + "/applicationGroups/g", properties(`"clientAppGroupIdentifier":"AADAppID=1","policies":[{"type":"ThrottlingPolicy","name":"p","metricId":"Bytes"}]`), 400, "BadRequest"},
		{"PUT", ns + "/applicationGroups/g", properties(`"clientAppGroupIdentifier":"AADAppID=1","policies":[{"type":"ThrottlingPolicy","name":"p","metricId":"IncomingBytes","rateLimitThreshold":1}]`), 400, "BadRequest"},
		{"PUT", "namespaces/basic-one/applicationGroups/g", properties(`"clientAppGroupIdentifier":"AADAppID=1"`), 400, "BadRequest"},
		{"GET", ns + "/applicationGroups/g", "", 404, "NotFound"},
		{"PUT", ns + "/disasterRecoveryConfigs/a", "{}", 400, "DisasterRecoveryNotSupported"},
		{"PUT", "clusters/c", "{}", 400, "ClusterNotSupported"},
		{"GET", "namespaces/nowhere/applicationGroups", "", 404, "ParentResourceNotFound"},

		{"PUT", h, "", 400, "InvalidRequestContent"},
		{"PUT", h, " [] ", 400, "InvalidRequestContent"},
		{"PUT", h, "{", 400, "InvalidRequestContent"},
		{"PUT", h, "{} {}", 400, "InvalidRequestContent"},
		{"PUT", h, "{\"a\":\"\xff\"}", 400, "InvalidRequestContent"},
		{"PUT", h, properties(`"partitionCount":"four"`), 400, "InvalidRequestContent"},
		{"PUT", h, properties(`"partitionCount":1.5`), 400, "InvalidRequestContent"},
		{"PUT", h, strings.Repeat(`{"a":`, 100) + "1" + strings.Repeat("}", 100), 400, "InvalidRequestContent"},
		{"PUT", h, `{"a":"` + strings.Repeat("x", rest.MaxARM) + `"}`, 413, "RequestEntityTooLarge"},

		{"POST", "namespaces", "{}", 405, "MethodNotAllowed"},
		{"PATCH", h, "{}", 405, "MethodNotAllowed"},
		{"PUT", "/subscriptions/s1/resourceGroups/g1", "{}", 405, "MethodNotAllowed"},
		{"GET", "queues", "", 404, "InvalidResourceType"},
		{"GET", "", "", 404, "InvalidResourceType"},
		{"GET", "namespaces//eventhubs", "", 404, "InvalidResourceType"},
		{"GET", "/subscriptions/s1/providers/Microsoft.EventHub/namespaces/localhost", "", 404, "InvalidResourceType"},
		{"GET", "/subscriptions/s1/resourceGroups/g1/providers/Microsoft.ServiceBus/namespaces", "", 404, "InvalidResourceNamespace"},
		{"GET", "namespaces?x=1", "", 400, "MissingApiVersionParameter"},
		{"GET", "namespaces?api-version=", "", 400, "MissingApiVersionParameter"},
		{"GET", "namespaces?api-version=latest", "", 400, "InvalidApiVersionParameter"},
		{"GET", "namespaces?api-version=2024-13-01", "", 400, "InvalidApiVersionParameter"},
		{"GET", "namespaces?api-version=2024-01-01-alpha", "", 400, "InvalidApiVersionParameter"},
		{"GET", "namespaces?api-version=2024-01-01&$top=x", "", 400, "BadRequest"},
		{"GET", "namespaces?api-version=2024-01-01&$skip=-1", "", 400, "BadRequest"},
	} {
		status, doc, header := m.ask(c.method, c.path, c.body)
		if status != c.status || doc.at("error.code") != c.code || doc.at("error.message") == nil || header.Get("X-Ms-Request-Id") == "" {
			t.Errorf("%s %s %.80s: %d %v; wanted %d %s", c.method, c.path, c.body, status, doc, c.status, c.code)
		}
		if status == 405 && header.Get("Allow") == "" {
			t.Errorf("%s %s: no Allow", c.method, c.path)
		}
	}
}

func TestARMAuthorization(t *testing.T) {
	m := newManager(t)
	for _, c := range []struct {
		token, code string
		status      int
	}{
		{"", "AuthenticationFailed", 401},
		{token("http://localhost/", "root", "root key"), "AuthenticationFailedInvalidHeader", 401},
		{"Bearer " + token("http://localhost/", "root", "root key"), "AuthenticationFailedInvalidHeader", 401},
		{"Basic abc", "AuthenticationFailedInvalidHeader", 401},
		{"Bearer", "InvalidAuthenticationToken", 401},
		{"Bearer a.eyJleHAiOjF9.b", "ExpiredAuthenticationToken", 401}, // exp: 1
	} {
		status, doc, header := m.ask("GET", "namespaces", "", "Authorization", c.token)
		if status != c.status || doc.at("error.code") != c.code || !strings.HasPrefix(header.Get("WWW-Authenticate"), "Bearer ") {
			t.Errorf("%q: %d %v %v", c.token, status, doc, header)
		}
	}

	// Where no tokens of Entra's are taken, none is.
	srv := httptest.NewServer(m.server)
	defer srv.Close()
	closed := &manager{m.world, srv.URL}
	status, doc, _ := closed.ask("DELETE", "namespaces/localhost/eventhubs/trial", "", "Authorization", "Bearer a.b.c")
	if status != 401 || doc.at("error.code") != "InvalidAuthenticationToken" || !strings.Contains(fmt.Sprint(doc.at("error.message")), "--entra") {
		t.Errorf("%d %v", status, doc)
	}
	if _, err := m.all.Default().EventHub("trial"); err != nil {
		t.Error(err)
	}
}
