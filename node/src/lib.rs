//! The node agent: says the address of a pod of its node as soon as its sandbox has one.
