//! What is kept in memory, and whether it still holds: the same for the service itself
//! and for its clients.

pub(crate) mod cache;
pub(crate) mod flights;
pub(crate) mod key;
pub(crate) mod slots;
