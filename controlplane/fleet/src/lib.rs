//! The proxy as a member of a fleet.
