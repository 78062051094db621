// Package compat runs the official clients, in their own languages and versions,
// against a broker that it starts, and writes down what it saw: the table in
// docs/compatibility.md. It is a module of its own, so that neither the clients
// nor what they need reach the broker's.
//
// A client is a program in a folder of clients; README.md says what it is given
// and what it prints.
package compat
