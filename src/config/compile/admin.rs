//! `[admin]`: where the admin API listens, and who may do what there.

use std::ops::RangeInclusive;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::super::file::{Table, Value};
use super::super::settings::{Admin, TOKENS_MAX, Token, TokenDigest, TokenSource, is_token68};
use super::super::{keys, words};
use super::{is_any_port, listen_address, pem, policy, refuse_repeated};
use crate::core::id::Name;

/// Shortest and longest token, in bytes.
const TOKEN_LEN: RangeInclusive<usize> = 16..=1_024;
/// The bit of a file's mode that lets everyone write it.
const WRITABLE_BY_ANYONE: u32 = 0o002;
const TOKENS_FORM: &str =
    "a list such as [{ name = \"ci\", role = \"operator\", env = \"TIDEGATE_TOKEN_CI\" }]; leave it out for none";

pub(super) fn admin(root: &Table<'_>) -> Admin {
    let default = Admin::default();
    let Some(table) = root.table("admin", &keys::ADMIN) else { return default };
    let listen = listen_address(&table, "listen").unwrap_or(default.listen);
    if let (true, false, Some(value)) = (listen.is_remote(), table.has("tokens"), table.value("listen")) {
        value.refuse(
            "other machines can reach this address, so it needs [admin] tokens, such as \
             tokens = [{ name = \"ops\", role = \"admin\", env = \"TIDEGATE_TOKEN_OPS\" }]; without tokens take a loopback address \
             such as \"127.0.0.1:9900\", or \"unix:/path\"",
        );
    }
    let probe_listen = listen_address(&table, "probe_listen");
    let taken = probe_listen.as_ref() == Some(&listen) && !is_any_port(&listen);
    if let Some(value) = table.value("probe_listen").filter(|_| taken) {
        value.refuse("the address of the admin API itself; take another port");
    }
    let require_reason = table.boolean("require_reason", default.require_reason);
    Admin { listen, probe_listen, tokens: tokens(&table), require_reason }
}

fn tokens(admin: &Table<'_>) -> Vec<Token> {
    let Some(value) = admin.value("tokens") else { return Vec::new() };
    let Some(tables) = admin.tables("tokens", &keys::TOKEN) else { return Vec::new() };
    if tables.is_empty() {
        value.wrong(format_args!("an empty list; {TOKENS_FORM}"));
    }
    if tables.len() > TOKENS_MAX {
        value.wrong(format_args!("{} tokens; at most {TOKENS_MAX} are allowed", tables.len()));
    }
    let tokens: Vec<Token> = tables.iter().filter_map(token).collect();
    if tokens.len() == tables.len() {
        let both = || tokens.iter().zip(&tables);
        refuse_repeated(both().map(|(token, table)| (&token.name, table)), "name", "each token has a name of its own");
        for (i, (token, table)) in both().enumerate() {
            let same = tokens[..i].iter().find(|before| before.digest == token.digest);
            if let Some(same) = same {
                table.wrong(format_args!(
                    "the same secret as token \"{}\"; who of them asks could not be told",
                    same.name
                ));
            }
        }
    }
    tokens
}

fn token(table: &Table<'_>) -> Option<Token> {
    let name = table.required("name", "how events call whoever uses this token, such as \"ci\"");
    let name = name.and_then(|value| value.read("a name", Name::new));
    let role = table.required("role", &words::ROLE.form());
    let role = role.and_then(|value| value.read(&words::ROLE.form(), |word| words::ROLE.get(word)));
    let secret = match (table.value("env"), table.value("file")) {
        (Some(env), None) => from_env(env),
        (None, Some(file)) => from_file(file),
        (Some(_), Some(file)) => {
            file.wrong("contradicts env; write one of them");
            None
        }
        (None, None) => {
            table.wrong(
                "has no secret; write env = \"NAME\" for an environment variable with it, or file = \"PATH\" (make one with: openssl rand -hex 32)",
            );
            None
        }
    };
    let (digest, source) = secret?;
    Some(Token { name: name?, role: role?, digest, source })
}

fn from_env(value: Value<'_, '_>) -> Option<(TokenDigest, TokenSource)> {
    let (name, token) = policy::variable(value)?;
    let digest = digest(value, "what is in this environment variable", token.as_bytes())?;
    Some((digest, TokenSource::Env(name.to_owned())))
}

fn from_file(value: Value<'_, '_>) -> Option<(TokenDigest, TokenSource)> {
    let file = pem::file(value)?;
    if std::fs::metadata(&file.path).is_ok_and(|metadata| metadata.permissions().mode() & WRITABLE_BY_ANYONE != 0) {
        value.refuse("anyone on this machine may write this file, and so make a token of their own: chmod 600 it");
        return None;
    }
    let digest = digest(value, "what is in this file", file.pem.trim_ascii_end())?;
    Some((digest, TokenSource::File(PathBuf::from(file.path))))
}

/// The digest of `token`, if it can be sent. The secret is in no message.
fn digest(value: Value<'_, '_>, what: &str, token: &[u8]) -> Option<TokenDigest> {
    if !TOKEN_LEN.contains(&token.len()) {
        let (shortest, longest, len) = (TOKEN_LEN.start(), TOKEN_LEN.end(), token.len());
        value.refuse(format_args!("{what} has {len} bytes; {shortest} to {longest} are allowed"));
        return None;
    }
    if !is_token68(token) {
        value.refuse(format_args!(
            "{what} is not a token: only letters, digits and - . _ ~ + / are allowed, and = at its end"
        ));
        return None;
    }
    Some(TokenDigest::of(token))
}
