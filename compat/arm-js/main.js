// Manages namespaces and what is in them with @azure/arm-eventhub.
//
// Each function is a case. A line of JSON says how one went.

const assert = require("node:assert/strict");
const { EventHubManagementClient } = require("@azure/arm-eventhub");

const subscription = "00000000-0000-0000-0000-000000000003";
const group = "test-group";

const connect = () =>
  new EventHubManagementClient(
    { getToken: async () => ({ token: "any", expiresOnTimestamp: Date.now() + 3600e3 }) },
    subscription,
    {
      endpoint: "https://" + process.env.MILLRACE_HTTPS,
      credentials: { scopes: ["https://eventhubs.azure.net/.default"] },
    },
  );

async function names(list) {
  const all = [];
  for await (const x of list) all.push(x.name);
  return all;
}

async function refused(code, status, call) {
  await assert.rejects(call, (e) => {
    assert.deepEqual([e.statusCode, e.code], [status, code], e.message);
    return true;
  });
}

// has compares what is named alone.
function has(have, want) {
  for (const key of Object.keys(want)) assert.deepEqual(have[key], want[key], key);
}

const cases = {
  async namespaces(c) {
    const made = await c.namespaces.createOrUpdate(group, "script-one", {
      location: "westus",
      tags: { team: "a" },
      sku: { name: "Standard", tier: "Standard", capacity: 2 },
      isAutoInflateEnabled: true,
      maximumThroughputUnits: 5,
      zoneRedundant: true,
    });
    assert.equal(made.id, `/subscriptions/${subscription}/resourceGroups/${group}/providers/Microsoft.EventHub/namespaces/script-one`);
    const got = await c.namespaces.get(group, "script-one");
    has(got, {
      name: "script-one", type: "Microsoft.EventHub/Namespaces", location: "westus", tags: { team: "a" },
      isAutoInflateEnabled: true, maximumThroughputUnits: 5, zoneRedundant: true, provisioningState: "Succeeded",
    });
    has(got.sku, { name: "Standard", tier: "Standard", capacity: 2 });
    assert.ok(got.createdAt instanceof Date);
    got.sku.capacity = 3;
    has((await c.namespaces.createOrUpdate(group, "script-one", got)).sku, { capacity: 3 });
    has(await c.namespaces.update(group, "script-one", { tags: { team: "b" } }), { tags: { team: "b" } });
    const unlimited = await c.namespaces.get(group, "localhost");
    assert.equal(unlimited.sku.name, "Unlimited");
    has((await c.namespaces.createOrUpdate(group, "localhost", unlimited)).sku, { tier: "Unlimited" });
    for (const list of [c.namespaces.list(), c.namespaces.listByResourceGroup(group)]) {
      assert.deepEqual(await names(list), ["localhost", "script-one"]);
    }
    await c.namespaces.delete(group, "script-one");
    await c.namespaces.delete(group, "script-one");
  },

  async hubs(c) {
    const made = await c.eventHubs.createOrUpdate(group, "localhost", "script", {
      partitionCount: 3,
      userMetadata: "mine",
      retentionDescription: { cleanupPolicy: "Delete", retentionTimeInHours: 36 },
    });
    has(made, {
      name: "script", type: "Microsoft.EventHub/namespaces/eventhubs", partitionCount: 3, partitionIds: ["0", "1", "2"],
      userMetadata: "mine", status: "Active", messageRetentionInDays: 2,
    });
    has(made.retentionDescription, { retentionTimeInHours: 36, cleanupPolicy: "Delete" });
    const got = await c.eventHubs.get(group, "localhost", "script");
    got.status = "ReceiveDisabled";
    const changed = await c.eventHubs.createOrUpdate(group, "localhost", "script", got);
    has(changed, { status: "ReceiveDisabled" });
    has(changed.retentionDescription, { retentionTimeInHours: 36 });
    await c.eventHubs.createOrUpdate(group, "localhost", "script-2", {});
    assert.deepEqual(await names(c.eventHubs.listByNamespace(group, "localhost", { top: 1 })), ["events", "script", "script-2"]);
    await c.eventHubs.delete(group, "localhost", "script-2");
    await c.eventHubs.delete(group, "localhost", "script-2");
  },

  async groups(c) {
    await c.eventHubs.createOrUpdate(group, "localhost", "script-groups", {});
    const made = await c.consumerGroups.createOrUpdate(group, "localhost", "script-groups", "billing", { userMetadata: "mine" });
    has(made, { name: "billing", userMetadata: "mine" });
    const got = await c.consumerGroups.get(group, "localhost", "script-groups", "billing");
    has(got, { type: "Microsoft.EventHub/namespaces/eventhubs/consumergroups" });
    assert.deepEqual(await names(c.consumerGroups.listByEventHub(group, "localhost", "script-groups")), ["$Default", "billing"]);
    await c.consumerGroups.delete(group, "localhost", "script-groups", "billing");
    await c.consumerGroups.delete(group, "localhost", "script-groups", "billing");
    await c.eventHubs.delete(group, "localhost", "script-groups");
  },

  async rules(c) {
    const made = await c.namespaces.createOrUpdateAuthorizationRule(group, "localhost", "script", { rights: ["Send"] });
    has(made, { name: "script", rights: ["Send"] });
    const keys = await c.namespaces.listKeys(group, "localhost", "script");
    assert.match(keys.primaryConnectionString, /^Endpoint=sb:\/\/localhost:\d+\/;SharedAccessKeyName=script;SharedAccessKey=/);
    const after = await c.namespaces.regenerateKeys(group, "localhost", "script", { keyType: "SecondaryKey" });
    has(after, { keyName: "script", primaryKey: keys.primaryKey });
    assert.notEqual(after.secondaryKey, keys.secondaryKey);
    assert.ok((await names(c.namespaces.listAuthorizationRules(group, "localhost"))).includes("script"));
    await c.eventHubs.createOrUpdate(group, "localhost", "script-rules", {});
    await c.eventHubs.createOrUpdateAuthorizationRule(group, "localhost", "script-rules", "one", { rights: ["Listen", "Send"] });
    const own = await c.eventHubs.listKeys(group, "localhost", "script-rules", "one");
    assert.match(own.secondaryConnectionString, /;EntityPath=script-rules$/);
    assert.deepEqual(await names(c.eventHubs.listAuthorizationRules(group, "localhost", "script-rules")), ["one"]);
    await c.eventHubs.deleteAuthorizationRule(group, "localhost", "script-rules", "one");
    await c.namespaces.deleteAuthorizationRule(group, "localhost", "script");
    await c.eventHubs.delete(group, "localhost", "script-rules");
  },

  async others(c) {
    has(await c.namespaces.checkNameAvailability({ name: "localhost" }), { nameAvailable: false, reason: "NameInUse" });
    has(await c.namespaces.checkNameAvailability({ name: "not-there-yet" }), { nameAvailable: true });
    assert.ok((await names(c.operations.list())).length >= 10);
    has(await c.namespaces.getNetworkRuleSet(group, "localhost"), { defaultAction: "Allow", ipRules: [], publicNetworkAccess: "Enabled" });
    const groups = c.applicationGroupOperations;
    assert.deepEqual(await names(groups.listByNamespace(group, "localhost")), []);
    const policies = [{ type: "ThrottlingPolicy", name: "p", metricId: "OutgoingBytes", rateLimitThreshold: 2048 }];
    await groups.createOrUpdateApplicationGroup(group, "localhost", "script", { clientAppGroupIdentifier: "AADAppID=script", policies });
    has(await groups.get(group, "localhost", "script"), { name: "script", isEnabled: true, clientAppGroupIdentifier: "AADAppID=script", policies });
    await groups.delete(group, "localhost", "script");
    assert.deepEqual(await names(c.disasterRecoveryConfigs.list(group, "localhost")), []);
  },

  async errors(c) {
    await refused("ResourceNotFound", 404, () => c.namespaces.get(group, "nowhere"));
    await refused("ParentResourceNotFound", 404, () => c.eventHubs.get(group, "nowhere", "none"));
    await refused("NotFound", 404, () => c.eventHubs.get(group, "localhost", "none"));
    await refused("BadRequest", 400, () => c.consumerGroups.delete(group, "localhost", "events", "$Default"));
    for (const bad of [{ partitionCount: 2000 }, { messageRetentionInDays: 0 }]) {
      await refused("BadRequest", 400, () => c.eventHubs.createOrUpdate(group, "localhost", "script-bad", bad));
    }
    await refused("BadRequest", 400, () => c.eventHubs.createOrUpdate(group, "localhost", "script-bad", { captureDescription: { enabled: true, intervalInSeconds: 59 } }));
    await refused("IdentityNotSupported", 400, () => c.namespaces.createOrUpdate(group, "script-bad", { identity: { type: "SystemAssigned" } }));
    await refused("NotFound", 404, () => c.eventHubs.get(group, "localhost", "script-bad"));
  },
};

(async () => {
  const c = connect();
  for (const name of process.argv.slice(2)) {
    try {
      await cases[name](c);
      console.log(JSON.stringify({ case: name, ok: true }));
    } catch (e) {
      console.error(e);
      console.log(JSON.stringify({ case: name, ok: false, detail: `${e.name}: ${e.message}` }));
    }
  }
})();
