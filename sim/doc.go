// Package sim tries a fleet: a home and many devices, whole enclaves in memory, in fake time (testing/synctest). A seed
// draws what happens: links that come, go and break in mid-session, clocks that run apart, crashes, lost states, captures, devices that
// meet one another while the home is gone, and years in a drawer; meanwhile people write, delete, tag, hold and remove at several
// labels. In the end everything is connected until nothing moves, and what everybody sees is compared.
//
// All of it is tests: what stands on redoubttest may open the store. `make sim` runs many seeds; a seed that fails is run again by
// `go test ./sim -run TestFleet -sim.seed N`, and told by as few steps as still make it fail.
package sim
