"""Manages namespaces and what is in them with azure-mgmt-eventhub.

Each function is a case. A line of JSON says how one went.
"""

import datetime
import json
import os
import sys
import time
import traceback

from azure.core.credentials import AccessToken
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.mgmt.eventhub import EventHubManagementClient

GROUP = "test-group"


class AnyToken:
    """A credential whose token says nothing."""

    def get_token(self, *scopes, **options):
        return AccessToken("any", int(time.time()) + 3600)


def connect():
    return EventHubManagementClient(
        AnyToken(),
        "00000000-0000-0000-0000-000000000002",
        base_url="https://" + os.environ["MILLRACE_HTTPS"],
        credential_scopes=["https://eventhubs.azure.net/.default"],
        connection_verify=os.environ["MILLRACE_CA_FILE"],
    )


def equal(have, want):
    assert have == want, f"{have!r} is not {want!r}"


def refused(code, status, call, *args):
    try:
        result = call(*args)
        if hasattr(result, "result"):
            result.result()
    except HttpResponseError as e:
        equal((e.status_code, e.error.code), (status, code))
        return e
    raise AssertionError(f"{code} was expected")


def namespaces(c):
    body = {
        "location": "westus",
        "tags": {"team": "a"},
        "sku": {"name": "Standard", "tier": "Standard", "capacity": 2},
        "properties": {"isAutoInflateEnabled": True, "maximumThroughputUnits": 5, "zoneRedundant": True},
    }
    made = c.namespaces.begin_create_or_update(GROUP, "python-one", body).result()
    equal(made.id, f"/subscriptions/{c._config.subscription_id}/resourceGroups/{GROUP}/providers/Microsoft.EventHub/namespaces/python-one")
    got = c.namespaces.get(GROUP, "python-one")
    equal((got.name, got.type, got.location), ("python-one", "Microsoft.EventHub/Namespaces", "westus"))
    equal((got.sku.name, got.sku.capacity, got.tags), ("Standard", 2, {"team": "a"}))
    equal((got.is_auto_inflate_enabled, got.maximum_throughput_units, got.provisioning_state, got.zone_redundant), (True, 5, "Succeeded", True))
    assert isinstance(got.created_at, datetime.datetime)
    got.sku.capacity = 3
    equal(c.namespaces.begin_create_or_update(GROUP, "python-one", got).result().sku.capacity, 3)
    equal(c.namespaces.update(GROUP, "python-one", {"tags": {"team": "b"}}).tags, {"team": "b"})
    unlimited = c.namespaces.get(GROUP, "localhost")
    equal(unlimited.sku.name, "Unlimited")
    equal(c.namespaces.begin_create_or_update(GROUP, "localhost", unlimited).result().sku.tier, "Unlimited")
    for listed in c.namespaces.list(), c.namespaces.list_by_resource_group(GROUP):
        equal([n.name for n in listed], ["localhost", "python-one"])
    c.namespaces.begin_delete(GROUP, "python-one").result()
    c.namespaces.begin_delete(GROUP, "python-one").result()


def hubs(c):
    body = {
        "properties": {
            "partitionCount": 3,
            "userMetadata": "mine",
            "retentionDescription": {"cleanupPolicy": "Delete", "retentionTimeInHours": 36},
        }
    }
    made = c.event_hubs.create_or_update(GROUP, "localhost", "python", body)
    equal((made.name, made.type), ("python", "Microsoft.EventHub/namespaces/eventhubs"))
    equal((made.partition_count, made.partition_ids, made.user_metadata, made.status), (3, ["0", "1", "2"], "mine", "Active"))
    equal((made.message_retention_in_days, made.retention_description.retention_time_in_hours), (2, 36))
    got = c.event_hubs.get(GROUP, "localhost", "python")
    got.status = "ReceiveDisabled"
    changed = c.event_hubs.create_or_update(GROUP, "localhost", "python", got)
    equal((changed.status, changed.retention_description.retention_time_in_hours), ("ReceiveDisabled", 36))
    c.event_hubs.create_or_update(GROUP, "localhost", "python-2", {"properties": {}})
    equal([h.name for h in c.event_hubs.list_by_namespace(GROUP, "localhost", top=1)], ["events", "python", "python-2"])
    c.event_hubs.delete(GROUP, "localhost", "python-2")
    c.event_hubs.delete(GROUP, "localhost", "python-2")


def groups(c):
    c.event_hubs.create_or_update(GROUP, "localhost", "python-groups", {"properties": {}})
    made = c.consumer_groups.create_or_update(GROUP, "localhost", "python-groups", "billing", {"properties": {"userMetadata": "mine"}})
    equal((made.name, made.user_metadata), ("billing", "mine"))
    equal(c.consumer_groups.get(GROUP, "localhost", "python-groups", "billing").type, "Microsoft.EventHub/namespaces/eventhubs/consumergroups")
    equal([g.name for g in c.consumer_groups.list_by_event_hub(GROUP, "localhost", "python-groups")], ["$Default", "billing"])
    c.consumer_groups.delete(GROUP, "localhost", "python-groups", "billing")
    c.consumer_groups.delete(GROUP, "localhost", "python-groups", "billing")
    c.event_hubs.delete(GROUP, "localhost", "python-groups")


def rules(c):
    sends = {"properties": {"rights": ["Send"]}}
    made = c.namespaces.create_or_update_authorization_rule(GROUP, "localhost", "python", sends)
    equal((made.name, list(made.rights)), ("python", ["Send"]))
    keys = c.namespaces.list_keys(GROUP, "localhost", "python")
    equal(keys.key_name, "python")
    assert keys.primary_connection_string.startswith("Endpoint=sb://localhost:"), keys.primary_connection_string
    assert keys.primary_connection_string.endswith("/;SharedAccessKeyName=python;SharedAccessKey=" + keys.primary_key)
    after = c.namespaces.regenerate_keys(GROUP, "localhost", "python", {"keyType": "SecondaryKey"})
    assert after.primary_key == keys.primary_key and after.secondary_key != keys.secondary_key
    assert "python" in [r.name for r in c.namespaces.list_authorization_rules(GROUP, "localhost")]
    c.event_hubs.create_or_update(GROUP, "localhost", "python-rules", {"properties": {}})
    c.event_hubs.create_or_update_authorization_rule(GROUP, "localhost", "python-rules", "one", sends)
    keys = c.event_hubs.list_keys(GROUP, "localhost", "python-rules", "one")
    assert keys.secondary_connection_string.endswith(";EntityPath=python-rules"), keys.secondary_connection_string
    equal([r.name for r in c.event_hubs.list_authorization_rules(GROUP, "localhost", "python-rules")], ["one"])
    c.event_hubs.delete_authorization_rule(GROUP, "localhost", "python-rules", "one")
    c.namespaces.delete_authorization_rule(GROUP, "localhost", "python")
    c.event_hubs.delete(GROUP, "localhost", "python-rules")


def others(c):
    equal(c.namespaces.check_name_availability({"name": "localhost"}).reason, "NameInUse")
    equal(c.namespaces.check_name_availability({"name": "not-there-yet"}).name_available, True)
    assert len(list(c.operations.list())) >= 10
    rules = c.namespaces.get_network_rule_set(GROUP, "localhost")
    equal((rules.default_action, rules.ip_rules, rules.public_network_access), ("Allow", [], "Enabled"))
    equal(list(c.application_group.list_by_namespace(GROUP, "localhost")), [])
    policy = {"type": "ThrottlingPolicy", "name": "p", "metricId": "OutgoingBytes", "rateLimitThreshold": 2048}
    want = {"properties": {"clientAppGroupIdentifier": "AADAppID=snake", "isEnabled": False, "policies": [policy]}}
    c.application_group.create_or_update_application_group(GROUP, "localhost", "snake", want)
    made = c.application_group.get(GROUP, "localhost", "snake")
    equal((made.client_app_group_identifier, made.is_enabled), ("AADAppID=snake", False))
    equal([(p.name, p.metric_id, p.rate_limit_threshold) for p in made.policies], [("p", "OutgoingBytes", 2048)])
    c.application_group.delete(GROUP, "localhost", "snake")
    equal(list(c.disaster_recovery_configs.list(GROUP, "localhost")), [])


def errors(c):
    e = refused("ResourceNotFound", 404, c.namespaces.get, GROUP, "nowhere")
    assert isinstance(e, ResourceNotFoundError)
    refused("ParentResourceNotFound", 404, c.event_hubs.get, GROUP, "nowhere", "none")
    refused("NotFound", 404, c.event_hubs.get, GROUP, "localhost", "none")
    refused("BadRequest", 400, c.consumer_groups.delete, GROUP, "localhost", "events", "$Default")
    for properties in {"partitionCount": 2000}, {"messageRetentionInDays": 0}:
        refused("BadRequest", 400, c.event_hubs.create_or_update, GROUP, "localhost", "python-bad", {"properties": properties})
    refused("BadRequest", 400, c.event_hubs.create_or_update, GROUP, "localhost", "python-bad", {"properties": {"captureDescription": {"enabled": True, "intervalInSeconds": 59}}})
    refused("IdentityNotSupported", 400, c.namespaces.begin_create_or_update, GROUP, "python-bad", {"identity": {"type": "SystemAssigned"}})
    refused("NotFound", 404, c.event_hubs.get, GROUP, "localhost", "python-bad")


def main(names):
    c = connect()
    for name in names:
        try:
            globals()[name](c)
            print(json.dumps({"case": name, "ok": True}), flush=True)
        except Exception as e:
            traceback.print_exc()
            print(json.dumps({"case": name, "ok": False, "detail": f"{type(e).__name__}: {e}"}), flush=True)


main(sys.argv[1:])
