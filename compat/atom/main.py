"""Manages event hubs as azure-servicebus 0.21 does: the last of Microsoft's own
clients with create_event_hub and its like, which speak Atom over HTTPS.

Each function is a case. A line of JSON says how one went.
"""

import json
import os
import sys
import traceback

import requests
from azure.common import AzureConflictHttpError, AzureHttpError, AzureMissingResourceHttpError
from azure.servicebus import AuthorizationRule, EventHub, ServiceBusService


def connect(key="SAS_KEY_VALUE"):
    host, port = os.environ["MILLRACE_HTTPS"].rsplit(":", 1)
    session = requests.Session()
    session.trust_env = False  # the environment's authorities would win
    session.verify = os.environ["MILLRACE_CA_FILE"]
    return ServiceBusService(
        service_namespace=host,
        host_base=":" + port,
        shared_access_key_name="RootManageSharedAccessKey",
        shared_access_key_value=key,
        request_session=session,
    )


def described(**more):
    hub = EventHub(message_retention_in_days=3, status="Active", user_metadata="<m> & ü", partition_count=3)
    hub.authorization_rules.append(
        AuthorizationRule(
            claim_type="SharedAccessKey",
            claim_value="None",
            rights=["Manage", "Send", "Listen"],
            key_name="all",
            primary_key="first key",
            secondary_key="second key",
        )
    )
    for name, value in more.items():
        setattr(hub, name, value)
    return hub


def same(hub, want):
    for name in "message_retention_in_days", "status", "user_metadata", "partition_count":
        have = getattr(hub, name)
        assert have == getattr(want, name), (name, have)
    rule, wanted = hub.authorization_rules[0], want.authorization_rules[0]
    assert len(hub.authorization_rules) == 1 and rule.rights == wanted.rights, rule.rights
    for name in "claim_type", "claim_value", "key_name", "primary_key", "secondary_key":
        assert getattr(rule, name) == getattr(wanted, name), name
    assert hub.partition_ids == [str(i) for i in range(want.partition_count)], hub.partition_ids


def refused(error, call, *args):
    try:
        call(*args)
    except error as e:
        return str(e)
    raise AssertionError("no %s" % error.__name__)


def create(service):
    assert service.create_event_hub("atom-create", described(), True)
    same(service.get_event_hub("atom-create"), described())
    assert not service.create_event_hub("atom-create", described())
    refused(AzureConflictHttpError, service.create_event_hub, "atom-create", None, True)


def defaults(service):
    assert service.create_event_hub("atom-defaults")
    hub = service.get_event_hub("atom-defaults")
    assert hub.name == "atom-defaults" and hub.message_retention_in_days == 7 and hub.partition_count == 16, vars(hub)


def update(service):
    service.create_event_hub("atom-update", described(), True)
    want = described(message_retention_in_days=5, status="SendDisabled", user_metadata="new", partition_count=4)
    same(service.update_event_hub("atom-update", want), want)
    # What was read can be sent back.
    hub = service.get_event_hub("atom-update")
    same(service.update_event_hub("atom-update", hub), want)
    # The service's own rule: what is not given is the default. Rules stay.
    hub = service.update_event_hub("atom-update", EventHub())
    assert hub.user_metadata is None and hub.status == "Active" and len(hub.authorization_rules) == 1, vars(hub)


def captured(service):
    # It doesn't know capture: what it reads and sends back leaves it as it is.
    hub = service.get_event_hub("atom-captured")
    assert hub.partition_count == 2 and hub.partition_ids == ["0", "1"] and hub.status == "Active", vars(hub)
    hub.user_metadata = "new"
    hub = service.update_event_hub("atom-captured", hub)
    assert hub.user_metadata == "new", vars(hub)


def delete(service):
    service.create_event_hub("atom-delete")
    assert service.delete_event_hub("atom-delete", True)
    assert not service.delete_event_hub("atom-delete")
    refused(AzureMissingResourceHttpError, service.get_event_hub, "atom-delete")
    refused(AzureMissingResourceHttpError, service.update_event_hub, "atom-delete", EventHub())


def send(service):
    service.create_event_hub("atom-send", EventHub(partition_count=1))
    service.send_event("atom-send", "hello", device_id="dev-01")
    service.send_event("atom-send", "hello")


def errors(service):
    text = refused(AzureHttpError, service.create_event_hub, "atom-bad", EventHub(partition_count=5000))
    assert "PartitionCount is a number" in text, text
    text = refused(AzureHttpError, service.create_event_hub, "-bad-")
    assert "can't be the name" in text.replace("&#39;", "'"), text
    text = refused(AzureHttpError, connect(key="wrong").create_event_hub, "atom-bad")
    assert "401" in text, text


def main():
    service = connect()
    for name in sys.argv[1:]:
        result = {"case": name, "ok": True}
        try:
            globals()[name](service)
        except Exception as e:
            traceback.print_exc()
            result = {"case": name, "ok": False, "detail": "%s: %s" % (type(e).__name__, e)}
        print(json.dumps(result), flush=True)


main()
