// Package carry moves messages between two nodes over whatever link there is: a Conn of four precedences over
// authenticated, sealed UDP datagrams (Endpoint), or over TLS where UDP is closed (DialTCP, ListenTCP). It is label-blind: it neither
// sees labels nor decides; what may cross is decided by who calls Send and, again, by who calls Receive.
//
// It is made for links that are slow, lossy and often down: a lost datagram holds up nothing but its
// own precedence, a loss alone slows nothing, an outage is waited out with small probes and ends with the first answer at the rate from
// before, and what is urgent goes next whatever is queued. docs/spec/carry.md has the format, the limits and the reasons.
//
// Reading order: conn.go is the contract; wire.go the format; endpoint.go, handshake.go and resume.go how a link comes to be; link.go, linkreceive.go and
// linksend.go the link itself; path.go and schedule.go its paths and which takes what; outgoing.go, incoming.go, flight.go and pace.go what it is made of.
//
// Locks: Endpoint.mu and link.mu are never held together, nor one of them with Tickets.mu.
package carry
