//! Generates the messages of Verification, without services.

use std::error::Error;

const PROTO: &str = "../../proto";
const FILE: &str = "token_authority/v1/verification.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={PROTO}");
    prost_build::Config::new().compile_fds(protox::compile([FILE], [PROTO])?)?;
    Ok(())
}
