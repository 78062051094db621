// Package rest is the Event Hubs service's HTTP interface: sending, the
// management of what is in a namespace in Atom (see atom.go), and of namespaces
// too as Azure Resource Manager does it (see arm.go).
//
// Sending is
//
//	POST /{hub}/messages
//	POST /{hub}/partitions/{id}/messages
//	POST /{hub}/publishers/{name}/messages
//
// The Host header names the namespace; a host that names none means the default
// one. The Authorization header holds a shared access signature or a JSON web
// token with "Bearer ", which must give Send on the path. An answer of 201 says
// that what was sent is stored; an error is
//
//	<Error><Code>404</Code><Detail>… TrackingId:…, SystemTracker:…, Timestamp:…</Detail></Error>
//
// There are two kinds of body. With the content type
// application/vnd.microsoft.servicebus.json it is a batch:
//
//	[{"Body":"…","UserProperties":{"Alert":"Strong Wind"},"BrokerProperties":{"PartitionKey":"…"}}, …]
//
// stored all or nothing in one partition. With any other it is the body of one
// event, byte for byte; the header BrokerProperties holds what a batch has under
// that name, and each header that is not HTTP's own is an application property.
//
// It knows hubs and partitions (package hub), who may send (package auth) and
// how a message is encoded (amqp/message); no AMQP links, no storage engine, not
// how the broker is put together.
//
// Sources: the service's documentation, "Send event", "Send batch events", "Send
// partition event", "Send event with publisher ID", and Service Bus's "Message
// headers and properties" and "Send Message Batch".
package rest
