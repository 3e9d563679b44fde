//! What the command line is let in by: `--token-file`, else `$TIDEGATE_TOKEN`. Never an argument: those are for everyone on the machine to read.

use std::io::Read;
use std::path::Path;

use hyper::header::HeaderValue;

use super::args::{AdminAddress, TOKEN_ENV};
use super::failure::Failure;
use crate::config::settings::is_token68;

/// Largest file that is read for a token, in bytes.
const FILE_BYTES_MAX: u64 = 4 * 1_024;

/// A token as it is sent.
#[derive(Clone, Debug)]
pub(super) struct Token {
    /// `Bearer ...`; not shown by `Debug`.
    pub(super) header: HeaderValue,
    /// Where it is from, for people.
    pub(super) source: String,
}

// === impl Token ===

impl Token {
    /// The token that is meant, if there is one.
    pub(super) fn choose(given: &AdminAddress) -> Result<Option<Self>, Failure> {
        if let Some(path) = &given.token_file {
            return Self::from_file(path).map(Some);
        }
        match std::env::var_os(TOKEN_ENV).filter(|token| !token.is_empty()) {
            Some(token) => Self::new(&token.to_string_lossy(), format!("${TOKEN_ENV}")).map(Some),
            None => Ok(None),
        }
    }

    fn from_file(path: &Path) -> Result<Self, Failure> {
        let mut bytes = Vec::new();
        let read = std::fs::File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
        read.map_err(|error| {
            Failure::new(format!("the token file {} cannot be read", path.display()))
                .detail(format!("{error}\n--token-file names a file that holds nothing but the token"))
        })?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(Failure::new(format!("the token file {} is too large", path.display()))
                .detail(format!("at most {FILE_BYTES_MAX} bytes are read; it holds nothing but the token")));
        }
        Self::new(&String::from_utf8_lossy(&bytes), path.display().to_string())
    }

    /// The token in `text`, which is from `source`. What is wrong with it is told, what it is never.
    pub(super) fn new(text: &str, source: String) -> Result<Self, Failure> {
        let token = text.trim();
        let header = HeaderValue::from_str(&format!("Bearer {token}")).ok().filter(|_| is_token68(token.as_bytes()));
        let Some(mut header) = header else {
            return Err(Failure::new(format!("what is in {source} is not a token"))
                .detail("a token is one word of letters, digits and - . _ ~ + /, and = at its end"));
        };
        header.set_sensitive(true);
        Ok(Self { header, source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_one_word_and_is_shown_nowhere() {
        let token = Token::new(" 0123456789abcdef\n", "x".to_owned()).expect("a token");
        assert_eq!(token.header, "Bearer 0123456789abcdef");
        assert!(!format!("{token:?}").contains("0123456789"));
        for bad in ["", " \n", "hunter2 hunter2", "hunter2\nhunter2", "hünter2", "hunter2!", "=hunter2"] {
            let why = Token::new(bad, "$TIDEGATE_TOKEN".to_owned()).expect_err(bad).to_string();
            assert!(why.starts_with("what is in $TIDEGATE_TOKEN is not a token") && !why.contains("nter2"), "{why}");
        }
    }

    #[test]
    fn a_file_that_holds_more_than_a_token_is_refused_and_not_cut() {
        let path = std::env::temp_dir().join(format!("tidegate-token-{}", std::process::id()));
        let most = usize::try_from(FILE_BYTES_MAX).expect("small");
        std::fs::write(&path, "x".repeat(most)).expect("writes");
        let whole = Token::from_file(&path);
        std::fs::write(&path, "x".repeat(most + 1)).expect("writes");
        let cut = Token::from_file(&path);
        std::fs::remove_file(&path).expect("removes");
        assert_eq!(whole.expect("a token").header.len(), "Bearer ".len() + most);
        let why = cut.expect_err("too large").to_string();
        assert!(why.contains("is too large\n  at most 4096 bytes") && !why.contains("xx"), "{why}");
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let why = Token::from_file(Path::new("/nonexistent/token")).expect_err("no file").to_string();
        assert!(why.starts_with("the token file /nonexistent/token cannot be read\n"), "{why}");
    }
}
