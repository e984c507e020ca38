//! What only production has: TCP and Unix sockets, signals, threads, the watchdog.
