// Package admin is the management interface that Millrace's own commands and web
// page use: JSON over HTTP below /admin/v1, and a Go client for it. It knows
// namespaces, event hubs, consumer groups and their receivers (package hub) and
// who may do what (package auth). It must not know any messaging protocol, the
// storage engine, or how the broker is put together: what only the broker can
// say of itself is lent to it as a function.
//
//	GET    /admin/v1/status
//	GET    /admin/v1/namespaces                 POST   /admin/v1/namespaces
//	GET    /admin/v1/namespaces/{namespace}     PATCH  /admin/v1/namespaces/{namespace}
//	DELETE /admin/v1/namespaces/{namespace}
//	GET    /admin/v1/namespaces/{namespace}/plan?since=TIME&capacity=UNITS
//	POST   /admin/v1/faults                     (if the broker allows faults)
//	GET    /admin/v1/hubs                       POST   /admin/v1/hubs
//	GET    /admin/v1/hubs/{hub}                 PATCH  /admin/v1/hubs/{hub}
//	DELETE /admin/v1/hubs/{hub}
//	GET    /admin/v1/hubs/{hub}/partitions
//	GET    /admin/v1/hubs/{hub}/receivers
//	GET    /admin/v1/hubs/{hub}/revokedpublishers
//	PUT    /admin/v1/hubs/{hub}/revokedpublishers/{publisher}
//	DELETE /admin/v1/hubs/{hub}/revokedpublishers/{publisher}
//	GET    /admin/v1/rules                      (and below /admin/v1/hubs/{hub}/)
//	GET    /admin/v1/rules/{rule}               PUT    /admin/v1/rules/{rule}
//	DELETE /admin/v1/rules/{rule}               POST   /admin/v1/rules/{rule}/regenerate
//	GET    /admin/v1/hubs/{hub}/groups          POST   /admin/v1/hubs/{hub}/groups
//	DELETE /admin/v1/hubs/{hub}/groups/{group}
//
// The Host header names the namespace, as it does on every HTTP path of the
// broker; a host that names none means the default namespace. The Authorization
// header holds a shared access signature, a JSON web token with "Bearer ", or a
// rule's name and key as HTTP Basic. Reading needs Listen, changing Manage: on
// the event hub for what lies below it, on the namespace for creating and
// deleting event hubs, on the namespace or the default one for a namespace, and
// on the default one for creating and deleting namespaces. Where a namespace has
// its local authentication disabled, keys are refused here, too, but for that of
// the broker's own rule. An error is
//
//	{"error":{"kind":"NotFound","message":"…"}}
//
// whose kind is that of a hub.Kind or auth.Kind, or BadRequest, NoSuchPath or
// MethodNotAllowed.
package admin
