// Package auth decides what a client may do. It knows the spellings of Event
// Hubs connection strings, shared access signatures and the JSON web tokens of
// Microsoft Entra or any OpenID Connect issuer, and turns each into [Claims]:
// which of Listen, Send and Manage, on which paths, until when.
//
// It holds no keys: the authorization rules belong to the hub, which answers
// through the [Keys] interface. It must not know hubs, protocols or storage,
// and imports nothing of ours; servers ask the claims when a link is attached
// or a request comes in.
package auth
