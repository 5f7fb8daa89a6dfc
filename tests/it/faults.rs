//! What breaks, while servers are asked and changed all the time: nothing acknowledged is
//! lost, nothing revoked is accepted after the bound, nothing good is called bad, and all
//! get on again without help.

mod database;
mod machine;
mod network;
mod rolling;
mod scene;
mod servers;
mod witness;
