//! A cluster of three with the shipped configuration: what each user may do, and what happens when nodes fail.

mod faults;
mod forming;
mod partition;
mod rig;
mod roles;
