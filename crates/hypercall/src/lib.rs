//! The Hermit/uhyve hypercall ABI, versions 1 and 2, as plain old data.
