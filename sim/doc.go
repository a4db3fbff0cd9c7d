// Package sim tries a fleet: a home and many devices, whole enclaves in memory, in fake time (testing/synctest). A seed
// draws what happens: links that come, go and break in mid-session or in the midst of large content, clocks that run apart, crashes, lost
// states, captures, devices that meet one another while the home is gone, and years in a drawer; meanwhile people write, delete, tag, hold,
// retain and remove at several labels, and officers at home add, change and revoke people. Devices differ in range, in what their links
// carry (all of it, some labels of it, the latest version alone), in their leases and in their budgets a day. In the end everything is
// connected until nothing moves, on as many days as budgets need, and what everybody holds, sees and may do is compared with what people
// were told.
//
// All of it is tests: what stands on redoubttest may open the store. `make sim` runs many seeds; a seed that fails is run again by
// `go test ./sim -run TestFleet -sim.seed N`, and told by as few steps as still make it fail. What chance would draw too seldom is written
// down (script_test.go). TestEveryPlantedFaultIsFound compiles the product with faults in it, line by line, and fails where the fleet does not
// find one.
package sim
