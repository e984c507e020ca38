//! The simulation of lameduck.
