//! Helpers for tests that run the `vmm` program.
