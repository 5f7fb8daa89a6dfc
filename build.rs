//! Generates the messages and services from `proto/`, in Rust alone: no
//! `protoc` is needed.

use std::{env, error::Error, fmt::Write as _, fs, path::PathBuf};

use protox::{Compiler, prost_reflect::DescriptorPool};

const FILES: [&str; 5] = [
    "token_authority/v1/api_client_authorizations.proto",
    "token_authority/v1/credentials.proto",
    "token_authority/v1/directory.proto",
    "token_authority/v1/personal_access_tokens.proto",
    "token_authority/v1/verification.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=src/store/migrations");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let mut compiler = Compiler::new(["proto"])?;
    compiler.include_source_info(true).include_imports(true).open_files(FILES)?;
    // What reflection serves; the typed set would lose `debug_redact`.
    fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;

    let secret = messages_with_secrets(&compiler.descriptor_pool());
    fs::write(out.join("redacted.rs"), redacted_debug(&secret)?)?;
    tonic_prost_build::configure()
        .generate_default_stubs(true)
        .build_transport(false)
        .skip_debug(secret.iter().map(|name| format!(".token_authority.v1.{name}")))
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}

/// The messages with a field that is marked `debug_redact`.
fn messages_with_secrets(pool: &DescriptorPool) -> Vec<String> {
    pool.all_messages()
        .filter(|message| message.package_name() == "token_authority.v1")
        .filter(|message| {
            message.fields().any(|field| {
                let options = field.options();
                options
                    .get_field_by_name("debug_redact")
                    .and_then(|redact| redact.as_bool())
                    .unwrap_or(false)
            })
        })
        .map(|message| message.name().to_owned())
        .collect()
}

/// A `Debug` for each of them that says what it is and nothing of what it holds.
fn redacted_debug(messages: &[String]) -> Result<String, std::fmt::Error> {
    let mut code = String::new();
    for name in messages {
        writeln!(
            code,
            "impl ::core::fmt::Debug for {name} {{\n\
             fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {{\n\
             f.write_str(\"{name} {{ .. }}\")\n}}\n}}"
        )?;
    }
    Ok(code)
}
