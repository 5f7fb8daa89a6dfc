//! Generates the messages and services from `proto/`, in Rust alone: no
//! `protoc` is needed.

use std::{env, error::Error, fmt::Write as _, fs, path::PathBuf};

use protox::{
    Compiler,
    prost_reflect::{
        DescriptorPool,
        prost_types::{FileDescriptorSet, field_descriptor_proto::Type},
    },
};

const FILES: [&str; 5] = [
    "token_authority/v1/api_client_authorizations.proto",
    "token_authority/v1/credentials.proto",
    "token_authority/v1/directory.proto",
    "token_authority/v1/personal_access_tokens.proto",
    "token_authority/v1/verification.proto",
];

/// The messages of which thousands come on one call, each with the field whose message
/// the server takes, or gives, as it is encoded. On the wire both are the same:
/// <https://protobuf.dev/programming-guides/proto3/#updating>.
const ENCODED: [(&str, Option<&str>); 5] = [
    ("BatchVerifyRequest", Some("requests")),
    ("BatchVerifyResponse", None),
    ("BatchVerifyResult", Some("response")),
    ("StreamVerifyRequest", Some("request")),
    ("StreamVerifyResponse", Some("response")),
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

    let out = out.join("encoded");
    fs::create_dir_all(&out)?;
    fs::write(out.join("redacted.rs"), redacted_debug(&with_questions())?)?;
    let pool = compiler.descriptor_pool();
    let others = pool
        .all_messages()
        .filter(|message| message.package_name() == "token_authority.v1")
        .filter(|message| ENCODED.iter().all(|(name, _)| *name != message.name()))
        .map(|message| message.name().to_owned());
    others
        .fold(tonic_prost_build::configure(), |builder, name| {
            let path = format!("crate::proto::v1::{name}");
            builder.extern_path(format!(".token_authority.v1.{name}"), path)
        })
        .out_dir(&out)
        .generate_default_stubs(true)
        .build_client(false)
        .bytes(".")
        .skip_debug(with_questions().iter().map(|name| format!(".token_authority.v1.{name}")))
        .compile_fds(with_encoded(compiler.file_descriptor_set()))?;
    Ok(())
}

/// Verification alone, with the fields of [`ENCODED`] as bytes.
fn with_encoded(mut files: FileDescriptorSet) -> FileDescriptorSet {
    for file in &mut files.file {
        file.service.retain(|service| service.name() == "Verification");
        for (name, field) in ENCODED {
            let messages = file.message_type.iter_mut().filter(|message| message.name() == name);
            let fields = messages.flat_map(|message| &mut message.field);
            for field in fields.filter(|each| Some(each.name()) == field) {
                field.set_type(Type::Bytes);
                field.type_name = None;
            }
        }
    }
    files
}

/// Those of [`ENCODED`] that hold what was asked, and so secrets.
fn with_questions() -> Vec<String> {
    let names = ENCODED.iter().map(|(name, _)| (*name).to_owned());
    names.filter(|name| name.ends_with("Request")).collect()
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
