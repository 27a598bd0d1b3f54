//! The command line of Nerite, as a library so that its parser can be documented and tested.
