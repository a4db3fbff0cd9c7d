package sandbox

// Instrumented is instrumented.
const Instrumented = instrumented
